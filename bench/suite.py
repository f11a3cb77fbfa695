"""All comparisons that the kernels are held against, in one run: a table with goals, all figures, and a plot.

    python -m bench.suite --models FOLDER --out FOLDER --peer llama.cpp=/opt/lcpp/bin/python \\
        --peer OpenVINO:openvino=/opt/ov/bin/python --avx2-peer xllamacpp:xllamacpp=/opt/xlc/bin/python

The models are SmolLM2 and random weights in the shape of Llama-3.2-1B, which bench.make_model writes into the models'
folder if they are missing (up to 1.3 GB each). Absolute goals are for a machine of two Zen 4 cores; ratios and shares
of the machine's limit carry further. --only picks rows by a part of their text. On a quiet machine of two cores, with
three peers, all of it takes some ten minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import make_model, steps
from .compare import FIRST, Engine, WorkerError, compare, find, set_limits, warn_if_busy
from .kernels import machine_limits
from .results import Row, Setup, Test, Work, can_plot, figure, markdown, plot, report, to_dict, write_json

SMOLLM2 = "smollm2"
#: of the 1B shape, beside Q4_0, Q4_K_M and Q8_0
OTHER_TYPES = ("Q4_1", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
PP, TG, TG_SHORT = Test("run", n_prompt=512), Test("run", n_gen=128), Test("run", n_gen=64)


@dataclass(frozen=True)
class Goal:
    """value: at least so many t/s, or at most so many ms or MB; ratio: to the best peer; share: of the limit;
    of: (factor, another row's key), at least (of bytes: at most) factor times that row's figure."""

    value: float | None = None
    ratio: float | None = None
    share: float | None = None
    of: tuple[float, str] | None = None


@dataclass(frozen=True)
class Case:
    """Tests in one setup, and the goal of each. peers: "all", "avx2" (those built without AVX-512) or "none"."""

    model: str
    threads: int
    goals: dict[Test, Goal]
    kv: str = "f16"
    level: str = ""
    peers: str = "all"

    def key(self, test: Test) -> str:
        """ "1b Q4_0 pp512 t2", with the KV type and the level if they are not the usual ones."""
        more = [self.kv] * (self.kv != "f16") + [self.level] * bool(self.level)
        return " ".join([self.model, test.name, f"t{self.threads}", *more])


def first_token(n: int) -> Test:
    return Test("first", n_prompt=n)


CASES = [
    Case(SMOLLM2, 1, {PP: Goal(1300, 1.35), TG: Goal(230, 1.8)}),
    Case(
        SMOLLM2, 2,
        {
            PP: Goal(2400, 1.35), TG: Goal(400, 1.8), Test("run", n_gen=32, n_seqs=8): Goal(1000),
            first_token(32): Goal(25), Test("start", n_prompt=32): Goal(600),
        },
    ),
    Case("1b Q4_0", 1, {PP: Goal(165, share=0.65), TG_SHORT: Goal(37, share=0.85)}),
    Case(
        "1b Q4_0", 2,
        {
            PP: Goal(310, share=0.65), TG_SHORT: Goal(71, share=0.85), Test("run", n_gen=8, n_seqs=16): Goal(200),
            Test("memory", n_gen=128): Goal(of=(1.1, "file")),
        },
    ),
    Case("1b Q4_K_M", 2, {PP: Goal(ratio=1.4), TG_SHORT: Goal(ratio=1.4)}),
    Case("1b Q8_0", 2, {PP: Goal(ratio=1.4), TG_SHORT: Goal(ratio=1.4, share=0.85)}),
    Case("1b Q4_0", 2, {Test("run", n_prompt=4096): Goal(of=(0.8, "1b Q4_0 pp512 t2"))}, peers="none"),
    *(
        Case(f"1b {kind}", 2, {PP: Goal(of=(0.8, "1b Q4_0 pp512 t2")), TG_SHORT: Goal(share=0.85)}, peers="none")
        for kind in OTHER_TYPES
    ),
    Case("1b Q4_0", 2, {PP: Goal(180), TG_SHORT: Goal(60)}, level="avx2", peers="avx2"),
    Case(SMOLLM2, 1, {Test("run", n_gen=64, n_depth=2048): Goal(150)}),
    Case(
        SMOLLM2, 1, {Test("run", n_gen=64, n_depth=2048): Goal(150, of=(1.0, f"{SMOLLM2} tg64 @ d2048 t1"))}, kv="q8_0"
    ),
]  # fmt: skip
#: microseconds outside C per step, by number of sequences
OVERHEAD = {1: 60.0, 16: 150.0}


@dataclass
class Outcome:
    """Rows by Case.key, in order."""

    rows: dict[str, Row] = field(default_factory=dict)
    goals: dict[str, Goal] = field(default_factory=dict)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)


def model_file(name: str, folder: Path) -> str:
    """SmolLM2's file, or that of a made model, which is written if it is missing."""
    if name == SMOLLM2:
        return find(name)
    shape, kind = name.split()
    path = folder / f"{shape}-{kind}.gguf"
    if not path.exists():
        print(f"suite: writing {path}", file=sys.stderr)
        unfinished = path.with_suffix(".part")
        make_model.write(make_model.SHAPES[shape], kind, str(unfinished))
        unfinished.replace(path)
    return str(path)


def run(
    cases: Sequence[Case],
    model: Callable[[str], str],
    engines: Sequence[Engine],
    avx2: Sequence[Engine],
    rounds: int,
    seconds: float,
    limits: Callable[[int], dict[str, float]] = machine_limits,
    work: Callable[[str], Work] = Work.of,
) -> Outcome:
    """Every case in turn. engines: pyllm and its peers; avx2: the peers of the cases of that level."""
    outcome = Outcome()
    machine = {n: limits(n) for n in sorted({case.threads for case in cases})}
    for case in cases:
        peers = {"all": engines[1:], "avx2": avx2, "none": []}[case.peers]
        setup = Setup(model(case.model), case.threads, case.kv, case.kv, case.level)
        rows, facts = compare([engines[0], *peers], setup, list(case.goals), rounds, seconds)
        outcome.facts = {**facts, **outcome.facts}
        set_limits(rows, facts[FIRST]["level"], machine, work)
        for row in rows:
            outcome.rows[case.key(row.test)] = row
            outcome.goals[case.key(row.test)] = case.goals[row.test]
    return outcome


# ---- goals ---------------------------------------------------------------------------------------------------


def judge(key: str, outcome: Outcome) -> list[tuple[str, bool]]:
    """What the row is to reach, in words, and whether it does."""
    row, goal = outcome.rows[key], outcome.goals[key]
    ours, less = row.median(FIRST), row.test.kind != "run"
    found: list[tuple[str, bool]] = []
    if goal.value is not None:
        text = f"{'<=' if less else '>='} {goal.value:g} {row.test.unit}"
        found.append((text, ours <= goal.value if less else ours >= goal.value))
    best = row.best_peer(FIRST)
    if goal.ratio is not None and best is not None:
        found.append((f">= {goal.ratio:g}x the best peer", best[1] >= goal.ratio))
    if goal.share is not None and row.limit:
        found.append((f">= {goal.share:.0%} of the limit", ours >= goal.share * row.limit))
    if goal.of is not None:
        factor, other = goal.of
        if other == "file":
            found.append((f"<= {factor:g}x the file", ours <= factor * Path(row.setup.model).stat().st_size / 1e6))
        elif other in outcome.rows:
            found.append((f">= {factor:g}x {other}", ours >= factor * outcome.rows[other].median(FIRST)))
    return found


def summary(outcome: Outcome) -> str:
    """A markdown table: a line per row, with its goals and what is missed."""
    lines = [["row", FIRST, "of the limit", "best peer", "times better", "min to max", "goal", "missed"]]
    for key, row in outcome.rows.items():
        line = [key, f"{figure(row.median(FIRST))} {row.test.unit}"]
        line.append(f"{row.median(FIRST) / row.limit:.0%}" if row.limit else "")
        best = row.best_peer(FIRST)
        if best is None:
            line += ["", "", ""]
        else:
            low, middle, high = row.ratio(FIRST, best[0])
            line += [f"{best[0]} {figure(row.median(best[0]))}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
        goals = judge(key, outcome)
        line += ["; ".join(text for text, _ in goals), "; ".join(text for text, met in goals if not met)]
        lines.append(line)
    return markdown(lines)


def overhead(model: str, rounds: int) -> str:
    """Markdown: what Python adds to a step, and the goals."""
    text, medians = steps.overhead_table(model, 1, tuple(OVERHEAD), rounds, time.perf_counter)
    goals = ", ".join(
        f"{n} sequences {1e6 * s:.0f} us, goal {OVERHEAD[n]:g}{'' if 1e6 * s <= OVERHEAD[n] else ' (missed)'}"
        for n, s in medians.items()
    )
    return f"{text}\n\n{goals}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.suite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", type=Path, required=True, metavar="FOLDER", help="of made models")
    add("--out", type=Path, required=True, metavar="FOLDER", help="for report.md, report.json and report.svg")
    add("--peer", type=Engine.parse, action="append", default=[], metavar="NAME[:WORKER]=PYTHON", help="as for compare")
    add("--avx2-peer", type=Engine.parse, action="append", default=[], metavar="NAME[:WORKER]=PYTHON",
        help="a peer built without AVX-512, for the rows of that level")  # fmt: skip
    add("--only", default="", metavar="TEXT", help='only rows with this in their key, for example "1b Q4_0" or "pp"')
    add("-r", "--rounds", type=int, default=5, metavar="N", help="rounds of a row at most (default: 5)")
    add("--seconds", type=float, default=12, metavar="S", help="begin no further round of a row after so long (12)")
    args = parser.parse_args(argv)
    cases = []
    for case in CASES:
        goals = {test: goal for test, goal in case.goals.items() if args.only in case.key(test)}
        if goals:
            cases.append(replace(case, goals=goals))
    if not cases and args.only != "overhead":
        parser.error(f"no row has {args.only!r} in its key")
    if not can_plot():
        print("suite: there will be no plot: matplotlib is missing (pip install '.[bench]')", file=sys.stderr)
    warn_if_busy()
    args.models.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    engines = [Engine(FIRST, sys.executable, "pyllm"), *args.peer]
    began = time.monotonic()
    try:
        outcome = run(
            cases, lambda name: model_file(name, args.models), engines, args.avx2_peer, args.rounds, args.seconds
        )
        text = ""
        if outcome.rows:
            rows = list(outcome.rows.values())
            names = "; ".join(fact["engine"] for fact in outcome.facts.values())
            text = f"{names}, on {outcome.facts[FIRST]['cpu']}\n\n{summary(outcome)}\n\n{report(rows, FIRST)}\n"
            write_json(args.out / "report.json", to_dict(rows, outcome.facts, FIRST))
            if can_plot() and any(len(row.samples) > 1 for row in rows):
                plot(rows, FIRST, args.out / "report.svg")
        if args.only in ("", "overhead"):
            text += f"\n{overhead(find(SMOLLM2), args.rounds)}\n"
    except WorkerError as error:
        print(f"suite: {error}", file=sys.stderr)
        return 2
    (args.out / "report.md").write_text(text, encoding="utf-8")
    print(text, end="")
    print(f"suite: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
