"""Time per step over batch sizes, and what Python adds to a step.

    python -m bench.steps -m model.gguf -t 2
    python -m bench.steps -m model.gguf --level avx2 --kind tokens --sizes 1-16 --json steps.json
    python -m bench.steps -m model.gguf --overhead

A step of n sequences is one token of each, with logits for all; a step of n tokens is a piece of one prompt, with
logits for the last. What is timed is the step's one C call; of each size the least of the rounds counts. Time should
grow along a line: a size that costs more than the line through its neighbours (the sizes before and after it in the
table) by more than the tolerance is marked, for it shows a cliff in some kernel or in how work is shared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .results import markdown

if TYPE_CHECKING:
    import pyllm

PAGE = 16
KINDS = ("sequences", "tokens")


class Stepper:
    """A loaded model whose steps are written here, without engine or scheduler.

    size: sequences or tokens of a step at most; depth: tokens that each sequence has already.
    """

    def __init__(self, model: str, n_threads: int, size: int, depth: int = 0, **options: Any) -> None:
        from pyllm.backend import Step
        from pyllm.backend.cpu import CpuBackend
        from pyllm.model import Model
        from pyllm.options import ModelOptions

        self.depth = depth
        self.pages_each = -(-(depth + 1) // PAGE)
        n_ctx = -(-(depth + size) // PAGE) * PAGE
        kv_tokens = max(size * self.pages_each * PAGE, n_ctx)
        self.model = Model(
            model,
            ModelOptions(
                n_ctx=n_ctx, n_batch=max(size, min(n_ctx, 512)), n_seqs=size, n_threads=n_threads, kv_tokens=kv_tokens,
                **options,
            ),
        )  # fmt: skip
        target = self.model.target
        self.step = Step(target.n_batch, target.n_seqs, target.n_out, n_ctx // PAGE)
        self.backend = CpuBackend(n_threads)
        self.backend.load(self.model.program, self.model.gguf, self.step)
        self.rng = np.random.default_rng(0)
        for seq in range(size if depth else 0):
            for start in range(0, depth, target.n_batch):
                self._write([(seq, start, min(target.n_batch, depth - start))])
                self.backend.run()

    def _write(self, chunks: Sequence[tuple[int, int, int]]) -> None:
        """The step's arrays for (sequence, first position, tokens); random tokens, logits of the last of each."""
        step, t = self.step, 0
        for s, (seq, start, n) in enumerate(chunks):
            pages = np.arange(seq * self.pages_each, seq * self.pages_each + -(-(start + n) // PAGE))
            step.page[s, : len(pages)] = pages
            step.q_start[s], step.kv_len[s], step.out[s] = t, start + n, t + n - 1
            pos = np.arange(start, start + n)
            step.token[t : t + n] = self.rng.integers(0, self.model.hparams.n_vocab, n)
            step.pos[t : t + n] = pos
            step.slot[t : t + n] = pages[pos // PAGE] * PAGE + pos % PAGE
            t += n
        step.q_start[len(chunks)] = t
        step.n_tokens, step.n_seqs, step.n_out = t, len(chunks), len(chunks)

    def time(self, kind: str, size: int, clock: Callable[[], float] = time.perf_counter) -> float:
        """Seconds of one step of so many sequences, or so many tokens of one sequence."""
        if kind == "sequences":
            self._write([(seq, self.depth, 1) for seq in range(size)])
        else:
            self._write([(0, self.depth, size)])
        start = clock()
        self.backend.run()
        return clock() - start

    def close(self) -> None:
        self.backend.close()
        self.model.close()


@dataclass(frozen=True)
class Point:
    """One size. excess: how much more it costs than the line through its neighbours, as a share; None at the ends."""

    size: int
    seconds: float
    excess: float | None


def points(sizes: Sequence[int], seconds: Sequence[float]) -> list[Point]:
    """Sizes, ascending, and what each costs."""
    found = []
    for i, (size, cost) in enumerate(zip(sizes, seconds, strict=True)):
        excess = None
        if 0 < i < len(sizes) - 1:
            (n0, t0), (n1, t1) = (sizes[i - 1], seconds[i - 1]), (sizes[i + 1], seconds[i + 1])
            excess = cost / (t0 + (t1 - t0) * (size - n0) / (n1 - n0)) - 1
        found.append(Point(size, cost, excess))
    return found


def sweep(
    stepper: Stepper, kind: str, sizes: Sequence[int], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[Point]:
    """Every size once a round, up and down in turns; the least of the rounds."""
    best = dict.fromkeys(sizes, float("inf"))
    stepper.time(kind, max(sizes), clock)
    for r in range(rounds):
        for size in sizes if r % 2 == 0 else reversed(sizes):
            best[size] = min(best[size], stepper.time(kind, size, clock))
    return points(sizes, [best[size] for size in sizes])


def table(kind: str, found: Sequence[Point], tolerance: float) -> str:
    """Markdown; sizes over the tolerance are marked."""
    lines = [[kind, "ms/step", "tokens/s", "us for one more", "over the line", ""]]
    before: Point | None = None
    for p in found:
        more = (p.seconds - before.seconds) / (p.size - before.size) * 1e6 if before else None
        lines.append([
            str(p.size), f"{p.seconds * 1e3:.3f}", f"{p.size / p.seconds:.1f}", "" if more is None else f"{more:.1f}",
            "" if p.excess is None else f"{p.excess:+.1%}", "<--" if over(p, tolerance) else "",
        ])  # fmt: skip
        before = p
    return markdown(lines)


def over(point: Point, tolerance: float) -> bool:
    return point.excess is not None and point.excess > tolerance


# ---- what Python adds ----------------------------------------------------------------------------------------


class TimedLib:
    """The C library, with the time spent in its calls that matter in a step added up."""

    CALLS = ("pl_run", "pl_sample_rows")

    def __init__(self, lib: Any, clock: Callable[[], float]) -> None:
        self._lib, self._clock = lib, clock
        self.spent = 0.0
        #: start of each pl_run, and time spent in C before it since the first
        self.steps: list[tuple[float, float]] = []
        for name in self.CALLS:
            setattr(self, name, self._timed(getattr(lib, name), name == "pl_run"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def _timed(self, call: Callable[..., Any], is_step: bool) -> Callable[..., Any]:
        clock = self._clock

        def timed(*args: Any) -> Any:
            start = clock()
            if is_step:
                self.steps.append((start, self.spent))
            result = call(*args)
            self.spent += clock() - start
            return result

        return timed


def overhead(
    llm: pyllm.LLM, n_seqs: int, n_gen: int = 64, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds outside C of each step that decodes n_seqs sequences, from one pl_run to the next; sampling's C calls
    count as C. Runs a request of n_seqs short prompts. clock: read by the engine thread."""
    from pyllm import sampler
    from pyllm.backend import cpu

    rng = np.random.default_rng()
    prompts = [rng.integers(0, llm.n_vocab, 4).tolist() for _ in range(n_seqs)]
    timed = TimedLib(cpu.lib, clock)
    before = cpu.lib, sampler.lib
    cpu.lib = sampler.lib = timed
    try:
        llm.generate(prompts, max_tokens=n_gen, temperature=0.8, top_k=40, seed=1, ignore_eos=True)
    finally:
        cpu.lib, sampler.lib = before
    steps = timed.steps[1:-1]  # from the second, the first having been the prompts
    if len(timed.steps) != n_gen:
        raise RuntimeError(f"{len(timed.steps)} steps instead of {n_gen}: the sequences did not run together")
    return [(b[0] - a[0]) - (b[1] - a[1]) for a, b in itertools.pairwise(steps)]


def overhead_table(
    model: str, n_threads: int, counts: Sequence[int], repetitions: int, clock: Callable[[], float]
) -> tuple[str, dict[int, float]]:
    """Markdown, and the median of all steps in seconds by number of sequences."""
    import pyllm

    lines = [["sequences", "us outside C, median", "least", "90 % of steps under"]]
    medians = {}
    with pyllm.LLM(model, n_ctx=128, n_threads=n_threads, n_seqs=max(counts), kv_tokens=128 * max(counts)) as llm:
        for n in counts:
            overhead(llm, n, 8)
            spent = sorted(s for _ in range(repetitions) for s in overhead(llm, n, clock=clock))
            medians[n] = statistics.median(spent)
            lines.append([str(n), *(f"{1e6 * s:.0f}" for s in (medians[n], spent[0], spent[len(spent) * 9 // 10]))])
    return markdown(lines), medians


# ---- command line --------------------------------------------------------------------------------------------


def sizes_of(text: str) -> list[int]:
    """ "1-8,16,32": ascending."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    if not found or min(found) < 1:
        raise ValueError("sizes are whole numbers from 1")
    return sorted(found)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.steps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-m", "--model", default="smollm2", help="path, name or source of a model (default: smollm2)")
    add("-t", "--threads", type=int, default=1, metavar="N", help="default: 1")
    add("-k", "--kind", choices=KINDS, action="append", help="default: both")
    add("--sizes", type=sizes_of, default=sizes_of("1-64"), metavar="LIST", help="default: 1-64")
    add("-d", "--depth", type=int, default=0, metavar="N", help="tokens that each sequence has already (default: 0)")
    add("-r", "--rounds", type=int, default=7, metavar="N", help="rounds (default: 7)")
    add(
        "--tolerance", type=float, default=0.03, metavar="SHARE", help="over the line by this is marked (default: 0.03)"
    )
    add("--level", help="CPU level, as PYLLM_CPU")
    add("--compute", default="default", help="compute mode (default: default)")
    add("-ctk", "--cache-type-k", default="f16", metavar="TYPE")
    add("-ctv", "--cache-type-v", default="f16", metavar="TYPE")
    add(
        "--cpu-time",
        action="store_true",
        help="count time of the one thread on the CPU, not time that passes: for machines that are not quiet",
    )
    add("--overhead", action="store_true", help="measure what Python adds at 1 and 16 sequences, and nothing else")
    add("--json", metavar="FILE", help="write the figures to FILE as well")
    args = parser.parse_args(argv)
    if args.cpu_time and args.threads > 1:
        parser.error("--cpu-time counts one thread: give -t 1")
    if min(args.threads, args.rounds) < 1 or args.depth < 0:
        parser.error("-t and -r must be positive and -d not negative")
    if args.level:
        os.environ["PYLLM_CPU"] = args.level
    from pyllm import errors, hub, machine

    try:
        model = str(hub.resolve(args.model))
    except errors.DownloadError as error:
        print(f"steps: {error}", file=sys.stderr)
        return 2
    print(f"{Path(model).name}, {args.threads} threads, level {machine.cpu_level()}, depth {args.depth}\n")
    data: dict[str, Any] = {"model": model, "threads": args.threads, "level": machine.cpu_level(), "depth": args.depth}
    clock = time.thread_time if args.cpu_time else time.perf_counter
    if args.overhead:
        text, medians = overhead_table(model, args.threads, (1, 16), args.rounds, clock)
        print(text)
        data["overhead_us"] = {n: 1e6 * s for n, s in medians.items()}
    else:
        stepper = Stepper(
            model, args.threads, max(args.sizes), args.depth, compute=args.compute,
            type_k=args.cache_type_k, type_v=args.cache_type_v,
        )  # fmt: skip
        for kind in args.kind or KINDS:
            found = sweep(stepper, kind, args.sizes, args.rounds, clock)
            print(table(kind, found, args.tolerance))
            marked = [f"{p.size} ({p.excess:+.1%})" for p in found if over(p, args.tolerance)]
            print(f"\nover the line through their neighbours: {', '.join(marked) or 'none'}\n")
            data[kind] = [{"size": p.size, "ms": p.seconds * 1e3, "excess": p.excess} for p in found]
        stepper.close()
    if args.json:
        Path(args.json).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
