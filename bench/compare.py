"""pyllm beside another engine, on the same file, in turns.

Each engine runs in a process of its own, in its own interpreter. One round measures every test once with every
engine, and the order of the engines turns from round to round, so that a machine that slows down slows all of them.
Speeds are medians over the rounds; a ratio is the median of the rounds' ratios, with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKERS = Path(__file__).parent / "peers"
#: seconds between two runs, for threads to go to sleep and caches of the scheduler to settle
PAUSE = 0.1


class WorkerError(Exception):
    """A worker could not start, load or run; the message is its own."""


class Worker:
    """One engine in its process (the other end of peers/protocol.py)."""

    def __init__(self, name: str, python: str, script: str) -> None:
        self.name = name
        #: what it answered to load
        self.facts: dict[str, str] = {}
        try:
            self._process = subprocess.Popen(
                [python, str(WORKERS / f"{script}_worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise WorkerError(f"{name}: cannot start {python}: {error}") from error

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
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer

    def load(self, model: str, n_threads: int, n_ctx: int) -> None:
        self.facts = self.ask(do="load", model=model, n_threads=n_threads, n_ctx=n_ctx)

    def run(self, n_prompt: int, n_gen: int) -> int:
        return int(self.ask(do="run", n_prompt=n_prompt, n_gen=n_gen)["ns"])

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


@dataclass
class Row:
    """One test at one number of threads: tokens per second of each round, by engine."""

    threads: int
    test: str
    speeds: dict[str, list[float]] = field(default_factory=dict)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile (the least and greatest of fewer than four values)."""
    middle = statistics.median(values)
    if len(values) < 4:
        return min(values), middle, max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of ours / theirs, round by round."""
    return quartiles([a / b for a, b in zip(ours, theirs, strict=True)])


def turns(n_engines: int, n_rounds: int) -> list[list[int]]:
    """The order of the engines in each round: A B, B A, A B, ... and the same with more of them."""
    forward = list(range(n_engines))
    return [forward[r % n_engines :] + forward[: r % n_engines] for r in range(n_rounds)]


def measure(workers: Sequence[Worker], threads: int, tests: Sequence[tuple[str, int, int]], rounds: int) -> list[Row]:
    """One row per test; workers are loaded already."""
    rows = [Row(threads, name, {w.name: [] for w in workers}) for name, _, _ in tests]
    for worker in workers:
        for _, n_prompt, n_gen in tests:
            worker.run(n_prompt, min(n_gen, 8))
    for order in turns(len(workers), rounds):
        for row, (_, n_prompt, n_gen) in zip(rows, tests, strict=True):
            for i in order:
                time.sleep(PAUSE)
                ns = workers[i].run(n_prompt, n_gen)
                row.speeds[workers[i].name].append((n_prompt + n_gen) * 1e9 / ns)
    return rows


# ---- output --------------------------------------------------------------------------------------------------


def report(rows: Sequence[Row], first: str) -> str:
    """A markdown table: medians, and ratios of the first engine to each other one with quartiles."""
    others = [name for name in rows[0].speeds if name != first]
    head = ["threads", "test", f"{first} t/s"]
    for name in others:
        head += [f"{name} t/s", f"{first} / {name}", "quartiles"]
    lines = [head]
    for row in rows:
        line = [str(row.threads), row.test, f"{statistics.median(row.speeds[first]):.1f}"]
        for name in others:
            low, middle, high = ratios(row.speeds[first], row.speeds[name])
            speed = f"{statistics.median(row.speeds[name]):.1f}"
            line += [speed, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|")
    return "\n".join(text)


def to_dict(rows: Sequence[Row], facts: dict[str, dict[str, str]], first: str) -> dict[str, Any]:
    """All samples and what the table says, for machines."""
    results = []
    for row in rows:
        entry: dict[str, Any] = {"threads": row.threads, "test": row.test, "engines": {}}
        for name, speeds in row.speeds.items():
            low, middle, high = ratios(row.speeds[first], speeds)
            entry["engines"][name] = {
                "median_ts": statistics.median(speeds),
                "samples_ts": speeds,
                "ratio": middle,
                "ratio_quartiles": [low, high],
            }
        results.append(entry)
    return {
        "model": facts[first].get("path"),
        "cpu": facts[first].get("cpu"),
        "engines": {name: fact["engine"] for name, fact in facts.items()},
        "first": first,
        "results": results,
    }


def short_of(rows: Sequence[Row], first: str, required: dict[str, float]) -> list[str]:
    """What falls short of the ratios that are required, in words; tests are known by the start of their name."""
    found = []
    for row in rows:
        for test, least in required.items():
            for name, speeds in row.speeds.items():
                ratio = ratios(row.speeds[first], speeds)[1]
                if name != first and row.test.startswith(test) and ratio < least:
                    found.append(f"{row.test}, {row.threads} threads: {ratio:.3f} of {name}, required {least}")
    return found


# ---- command line --------------------------------------------------------------------------------------------


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""a peer in its own virtual environment:
  python -m venv /opt/lcpp && CMAKE_ARGS="-DGGML_NATIVE=ON" /opt/lcpp/bin/pip install llama-cpp-python
  python -m bench.compare --peer llama.cpp=/opt/lcpp/bin/python -t 1 2""",
    )
    p.add_argument("-m", "--model", default="smollm2", help="path, name or source of a model (default: smollm2)")
    p.add_argument(
        "--peer", type=pair, action="append", default=[], metavar="NAME=PYTHON",
        help="compare with the engine that bench/peers/llamacpp_worker.py finds in this interpreter; repeatable. "
        "NAME is for the table; NAME:WORKER=PYTHON takes bench/peers/WORKER_worker.py",
    )  # fmt: skip
    p.add_argument("-t", "--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="default: 1 2")
    p.add_argument("-p", "--n-prompt", type=int, default=512, metavar="N", help="prompt tokens; 0: no such test")
    p.add_argument("-n", "--n-gen", type=int, default=128, metavar="N", help="generated tokens; 0: no such test")
    p.add_argument("-r", "--rounds", type=int, default=7, metavar="N", help="rounds (default: 7)")
    p.add_argument("--json", metavar="FILE", help="write all samples and ratios to FILE as well")
    p.add_argument(
        "--require", type=pair, action="append", default=[], metavar="TEST=RATIO",
        help="exit with 1 if a test is slower than RATIO times a peer, e.g. --require pp=0.7 --require tg=1.0",
    )  # fmt: skip
    return p


def main(argv: Sequence[str] | None = None) -> int:
    p = parser()
    args = p.parse_args(argv)
    try:
        required = {test: float(ratio) for test, ratio in args.require}
    except ValueError as error:
        p.error(f"--require: {error}")
    tests = [(f"pp{args.n_prompt}", args.n_prompt, 0)] if args.n_prompt else []
    tests += [(f"tg{args.n_gen}", 0, args.n_gen)] if args.n_gen else []
    if not tests or args.rounds < 1 or min(args.threads) < 1 or min(args.n_prompt, args.n_gen) < 0:
        p.error("nothing to measure: -p, -n, -r and -t must be positive")
    engines = [("pyllm", sys.executable, "pyllm")]
    for name, python in args.peer:
        shown, _, worker = name.partition(":")
        engines.append((shown, python, worker or "llamacpp"))
    if len({name for name, _, _ in engines}) < len(engines):
        p.error("every engine needs a name of its own")
    warn_if_busy()
    try:
        rows, facts = compare(engines, args.model, args.threads, tests, args.rounds)
    except WorkerError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    names = ", ".join(fact["engine"] for fact in facts.values())
    print(f"{Path(facts['pyllm']['path']).name}: {names}; medians of {args.rounds} rounds\n")
    print(report(rows, "pyllm"))
    if args.json:
        Path(args.json).write_text(json.dumps(to_dict(rows, facts, "pyllm"), indent=2) + "\n")
    missed = short_of(rows, "pyllm", required)
    for line in missed:
        print(f"compare: {line}", file=sys.stderr)
    return 1 if missed else 0


def warn_if_busy() -> None:
    """Threads that wait for each other measure whatever else runs, so say when something does."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"compare: the machine is busy (load {load:.1f}): expect noise", file=sys.stderr)


def compare(
    engines: Sequence[tuple[str, str, str]],
    model: str,
    threads: Sequence[int],
    tests: Sequence[tuple[str, int, int]],
    rounds: int,
) -> tuple[list[Row], dict[str, dict[str, str]]]:
    """Rows for every number of threads and every test, and what each engine said of itself.

    engines: (name, interpreter, worker), the first of which finds the file behind the model's name;
    tests: (name, n_prompt, n_gen).
    """
    rows: list[Row] = []
    facts: dict[str, dict[str, str]] = {}
    n_ctx = max(n_prompt + n_gen for _, n_prompt, n_gen in tests) + 2
    for n in threads:
        workers: list[Worker] = []
        try:
            for engine in engines:
                workers.append(Worker(*engine))
                workers[-1].load(model, n, n_ctx)
                model = workers[-1].facts.get("path", model)
            rows += measure(workers, n, tests, rounds)
            facts = {w.name: w.facts for w in workers}
        finally:
            for worker in workers:
                worker.close()
    return rows, facts


if __name__ == "__main__":
    sys.exit(main())
