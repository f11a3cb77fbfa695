"""pyllm beside other engines, on the same file, in turns.

Each engine runs in a process of its own, in its own interpreter (bench/peers). One round measures every test once with
every engine, and the order of the engines turns from round to round, so that a machine that slows down slows all of
them. Figures are medians over the rounds; a ratio is the median of the rounds' ratios, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kernels import machine_limits
from .results import KV_BYTES, Row, Setup, Test, Work, can_plot, plot, report, to_dict, write_json

WORKERS = Path(__file__).parent / "peers"
#: seconds between two runs, for threads to go to sleep and caches of the scheduler to settle
PAUSE = 0.1
#: tokens of context of the processes whose start and memory are measured
FRESH_CTX = 512
FIRST = "pyllm"


class WorkerError(Exception):
    """A worker could not start, load or run; the message is its own."""


class Unsupported(Exception):
    """The engine cannot do what it was asked; the message says what."""


@dataclass(frozen=True)
class Engine:
    """A name for the table, an interpreter, and the worker that it runs (bench/peers/WORKER_worker.py)."""

    name: str
    python: str
    worker: str

    @classmethod
    def parse(cls, text: str) -> Engine:
        """NAME=PYTHON or NAME:WORKER=PYTHON."""
        name, equals, python = text.partition("=")
        shown, _, worker = name.partition(":")
        if not (shown and equals and python):
            raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PYTHON or NAME:WORKER=PYTHON")
        return cls(shown, python, worker or "llamacpp")


def environment(engine: Engine, level: str) -> dict[str, str]:
    """pyllm's worker imports what is imported here; level: its CPU level, if not empty."""
    if engine.worker != "pyllm":
        return dict(os.environ)
    path = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
    return {**os.environ, "PYTHONPATH": path, **({"PYLLM_CPU": level} if level else {})}


class Worker:
    """One engine in its process (the other end of peers/protocol.py)."""

    def __init__(self, engine: Engine, level: str = "") -> None:
        self.name = engine.name
        #: what it answered to load
        self.facts: dict[str, str] = {}
        self.started = time.perf_counter_ns()
        try:
            self._process = subprocess.Popen(
                [engine.python, str(WORKERS / f"{engine.worker}_worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                env=environment(engine, level),
            )
        except OSError as error:
            raise WorkerError(f"{self.name}: cannot start {engine.python}: {error}") from error

    def ask(self, **request: Any) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        line = process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name}: the worker ended with status {process.wait()}; its stderr says why")
        answer: dict[str, Any] = json.loads(line)
        if "unsupported" in answer:
            raise Unsupported(f"{self.name}: {answer['unsupported']}")
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer

    def load(self, setup: Setup, n_ctx: int, n_seqs: int = 1) -> None:
        self.facts = self.ask(
            do="load", model=setup.model, n_threads=setup.threads, n_ctx=n_ctx, n_seqs=n_seqs,
            type_k=setup.type_k, type_v=setup.type_v,
        )  # fmt: skip

    def run(self, test: Test) -> int:
        """Nanoseconds of a "run" or "first" test."""
        if test.kind == "first":
            return int(self.ask(do="first", n_prompt=test.n_prompt)["ns"])
        fields = {"n_prompt": test.n_prompt, "n_gen": test.n_gen, "n_depth": test.n_depth, "n_seqs": test.n_seqs}
        return int(self.ask(do="run", **fields)["ns"])

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


# ---- measuring -----------------------------------------------------------------------------------------------


def turns(n_engines: int, n_rounds: int) -> list[list[int]]:
    """The order of the engines in each round: A B, B A, A B, ... and the same with more of them."""
    forward = list(range(n_engines))
    return [forward[r % n_engines :] + forward[: r % n_engines] for r in range(n_rounds)]


def warm_up(test: Test) -> Test:
    """A shorter run of the same kind."""
    return Test(test.kind, min(test.n_prompt, 64), min(test.n_gen, 4), test.n_depth, test.n_seqs)


def measure(workers: Sequence[Worker], setup: Setup, test: Test, rounds: int, seconds: float = 0) -> Row:
    """A row of workers that are loaded already; a peer that fails is left out of it with a message. seconds: begin no
    further round after so many, if not 0."""
    row = Row(setup, test)
    able = list(workers)

    def attempt(worker: Worker, what: Test) -> int:
        try:
            return worker.run(what)
        except (Unsupported, WorkerError) as reason:
            if worker is workers[0]:
                raise
            print(f"compare: {test.name}: {reason}", file=sys.stderr)
            able.remove(worker)
            row.samples.pop(worker.name, None)
            return 0

    for worker in workers:
        attempt(worker, warm_up(test))
    row.samples = {worker.name: [] for worker in able}
    start = time.monotonic()
    for r, order in enumerate(turns(len(workers), rounds)):
        if r and seconds and time.monotonic() - start > seconds:
            break
        for worker in (workers[i] for i in order if workers[i] in able):
            time.sleep(PAUSE)
            ns = attempt(worker, test)
            if worker in able:
                row.samples[worker.name].append(test.value(ns))
    return row


def measure_fresh(engines: Sequence[Engine], setup: Setup, tests: Sequence[Test], rounds: int) -> list[Row]:
    """Rows of "start" and "memory", each round in new processes."""
    rows = [Row(setup, test, {e.name: [] for e in engines}) for test in tests]
    for order in turns(len(engines), rounds):
        for i in order:
            time.sleep(PAUSE)
            worker = Worker(engines[i], setup.level)
            try:
                worker.load(setup, FRESH_CTX)
                n_prompt = next((t.n_prompt for t in tests if t.kind == "start"), 1)
                worker.run(Test("first", n_prompt))
                ns = time.perf_counter_ns() - worker.started
                for row in rows:
                    if row.test.kind == "memory":
                        worker.run(Test("run", n_gen=row.test.n_gen))
                    amount = ns if row.test.kind == "start" else int(worker.ask(do="peak")["bytes"])
                    row.samples[engines[i].name].append(row.test.value(amount))
            finally:
                worker.close()
    return rows


def compare(
    engines: Sequence[Engine], setup: Setup, tests: Sequence[Test], rounds: int, seconds: float = 0
) -> tuple[list[Row], dict[str, dict[str, str]]]:
    """A row for every test in one setup, and what each engine said of itself. The first engine must run all tests;
    another one that cannot load the model in this way, or fails, is left out with a message."""
    speed = [t for t in tests if t.kind in ("run", "first")]
    fresh = [t for t in tests if t.kind not in ("run", "first")]
    n_ctx = max((t.n_ctx for t in speed), default=FRESH_CTX)
    n_seqs = max((t.n_seqs for t in speed), default=1)
    rows: list[Row] = []
    workers: list[Worker] = []
    able: list[Engine] = []
    try:
        for engine in engines:
            workers.append(Worker(engine, setup.level))
            try:
                workers[-1].load(setup, n_ctx, n_seqs)
                able.append(engine)
            except (Unsupported, WorkerError) as reason:
                if engine is engines[0]:
                    raise
                print(f"compare: left out: {reason}", file=sys.stderr)
                workers.pop().close()
        facts = {w.name: w.facts for w in workers}
        for test in speed:
            rows.append(measure(workers, setup, test, rounds, seconds))
            print(f"compare: {rows[-1].label}: {brief(rows[-1])}", file=sys.stderr)
    finally:
        for worker in workers:
            worker.close()
    if fresh:
        rows += measure_fresh(able, setup, fresh, rounds)
    return rows, facts


def brief(row: Row) -> str:
    return ", ".join(f"{name} {row.median(name):.1f}" for name in row.samples) + f" {row.test.unit}"


def set_limits(
    rows: Sequence[Row],
    level: str,
    machine: dict[int, dict[str, float]],
    work: Callable[[str], Work] = Work.of,
) -> None:
    """Set the rows' limits. level: pyllm's; machine: what machine_limits() finds, by number of threads; work: of the
    model in a file."""
    for row in rows:
        row.limit = work(row.setup.model).limit(row.test, row.setup, machine[row.setup.threads], level)


def short_of(rows: Sequence[Row], first: str, peers: Sequence[str], required: dict[str, float]) -> list[str]:
    """What falls short of the ratios that are required, in words; tests are known by the start of their name."""
    found = []
    for row in rows:
        for test, least in required.items():
            for name in peers if row.test.name.startswith(test) else ():
                what = f"{row.test.name}, {row.setup.threads} threads"
                if not row.samples.get(name):
                    found.append(f"{what}: {name} has no figure, required {least}")
                elif (ratio := row.ratio(first, name)[1]) < least:
                    found.append(f"{what}: {ratio:.3f} of {name}, required {least}")
    return found


# ---- command line --------------------------------------------------------------------------------------------


def pair(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if name and equals:
            return name, float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not TEST=NUMBER")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""peers, each in its own virtual environment:
  python -m venv /opt/lcpp && CMAKE_ARGS="-DGGML_NATIVE=ON" /opt/lcpp/bin/pip install llama-cpp-python
  python -m venv /opt/xlc && /opt/xlc/bin/pip install xllamacpp
  python -m venv /opt/ov && /opt/ov/bin/pip install openvino-genai
  python -m bench.compare --peer llama.cpp=/opt/lcpp/bin/python --peer xllamacpp:xllamacpp=/opt/xlc/bin/python \\
    --peer OpenVINO:openvino=/opt/ov/bin/python -t 1 2""",
    )
    p.add_argument("-m", "--model", default="smollm2", help="path, name or source of a model (default: smollm2)")
    p.add_argument(
        "--peer", type=Engine.parse, action="append", default=[], metavar="NAME=PYTHON",
        help="compare with the engine that bench/peers/llamacpp_worker.py finds in this interpreter; repeatable. "
        "NAME is for the table; NAME:WORKER=PYTHON takes bench/peers/WORKER_worker.py",
    )  # fmt: skip
    add = p.add_argument
    add("-t", "--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2")
    add("-p", "--n-prompt", type=int, nargs="*", default=[512], metavar="N", help="prompt tokens (default: 512)")
    add("-n", "--n-gen", type=int, nargs="*", default=[128], metavar="N", help="tokens generated (default: 128)")
    add("-d", "--n-depth", type=int, nargs="+", default=[0], metavar="N", help="tokens of context before (default: 0)")
    add("-s", "--sequences", type=int, nargs="+", default=[1], metavar="N", help="sequences that generate together")
    add("--first", type=int, nargs="*", default=[], metavar="N", help="time to the first token after N prompt tokens")
    add("--start", action="store_true", help="time from the start of the process through import and load to a token")
    add("--memory", action="store_true", help="peak RSS after load and 128 tokens")
    add("-ctk", "--cache-type-k", default="f16", choices=KV_BYTES, metavar="TYPE", help="type of the K cache")
    add("-ctv", "--cache-type-v", default="f16", choices=KV_BYTES, metavar="TYPE", help="type of the V cache")
    add("--level", default="", help="pyllm's CPU level (PYLLM_CPU)")
    add("-r", "--rounds", type=int, default=7, metavar="N", help="rounds (default: 7)")
    add("--seconds", type=float, default=0, metavar="S", help="begin no further round of a test after so long")
    add("--limits", action="store_true", help="measure the machine and show pyllm's share of what it could do")
    add("--json", metavar="FILE", help="write all samples and ratios to FILE as well")
    add("--markdown", metavar="FILE", help="write the table to FILE as well")
    add("--plot", metavar="FILE", help="draw the ratios (.svg, .png; needs matplotlib, the extra `bench`)")
    add(
        "--require", type=pair, action="append", default=[], metavar="TEST=RATIO",
        help="exit with 1 if a test is slower than RATIO times a peer, e.g. --require pp=0.7 --require tg=1.0",
    )  # fmt: skip
    return p


def tests_of(args: argparse.Namespace) -> list[Test]:
    """The tests that the command line asks for."""
    tests = [Test("run", n_prompt=p, n_depth=d) for d in args.n_depth for p in args.n_prompt if p]
    tests += [
        Test("run", n_gen=n, n_depth=d, n_seqs=s) for d in args.n_depth for n in args.n_gen if n for s in args.sequences
    ]
    tests += [Test("first", n_prompt=n) for n in args.first]
    tests += [Test("start", n_prompt=32)] * args.start + [Test("memory", n_gen=128)] * args.memory
    return tests


def main(argv: Sequence[str] | None = None) -> int:
    p = parser()
    args = p.parse_args(argv)
    tests = tests_of(args)
    least = min([args.rounds, *args.threads, *args.sequences, *args.first])
    if not tests or least < 1 or min([0, *args.n_prompt, *args.n_gen, *args.n_depth]) < 0:
        p.error("nothing to measure: -p, -n, -s, -r, -t and --first must be positive")
    engines = [Engine(FIRST, sys.executable, "pyllm"), *args.peer]
    if len({e.name for e in engines}) < len(engines):
        p.error("every engine needs a name of its own")
    if args.plot and not can_plot():
        p.error("--plot needs matplotlib: pip install '.[bench]'")
    warn_if_busy()
    try:
        model = find(args.model)
        rows: list[Row] = []
        facts: dict[str, dict[str, str]] = {}
        for threads in args.threads:
            setup = Setup(model, threads, args.cache_type_k, args.cache_type_v, args.level)
            found, about = compare(engines, setup, tests, args.rounds, args.seconds)
            rows, facts = rows + found, {**facts, **about}
    except WorkerError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    if args.limits:
        set_limits(rows, facts[FIRST]["level"], {threads: machine_limits(threads) for threads in args.threads})
    write(rows, facts, f"{Path(model).name}", args)
    missed = short_of(rows, FIRST, [e.name for e in args.peer], dict(args.require))
    for line in missed:
        print(f"compare: {line}", file=sys.stderr)
    return 1 if missed else 0


def write(rows: Sequence[Row], facts: dict[str, dict[str, str]], title: str, args: argparse.Namespace) -> None:
    """The table on stdout, and the files that were asked for."""
    names = ", ".join(fact["engine"] for fact in facts.values())
    rounds = max(len(row.samples[FIRST]) for row in rows)
    text = f"{title} on {facts[FIRST].get('cpu')}: {names}; medians of {rounds} rounds\n\n{report(rows, FIRST)}\n"
    print(text, end="")
    if args.markdown:
        Path(args.markdown).write_text(text, encoding="utf-8")
    if args.json:
        write_json(args.json, to_dict(rows, facts, FIRST))
    if args.plot:
        plot(rows, FIRST, args.plot)


def find(model: str) -> str:
    """The file that a path, name or source means. WorkerError if there is none."""
    from pyllm.errors import DownloadError
    from pyllm.hub import resolve

    try:
        return str(resolve(model))
    except DownloadError as error:
        raise WorkerError(str(error)) from error


def warn_if_busy() -> None:
    """Threads that wait for each other measure whatever else runs, so say when something does."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"compare: the machine is busy (load {load:.1f}): expect noise", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
