"""`pyllm bench`: speed, with llama-bench's flags and formats of output."""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from ..options import KV_TYPES
from .args import UsageError, subparser

if TYPE_CHECKING:
    from .. import bench

FORMATS = ("md", "csv", "json", "jsonl")
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?:([+*])(\d+))?)?")
_EPILOG = """Lists: several values with commas between them, or the flag repeated.
Ranges: first-last, first-last+step, first-last*factor."""


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(commands, "bench", "measure the speed of a model", epilog=_EPILOG)
    add = parser.add_argument
    add("word", nargs="?", metavar="MODEL", help="name, path or source (default: smollm2)")
    add("-m", "--model", action="append", metavar="MODEL", help="the same; a list is allowed")
    add("-p", "--n-prompt", action="append", metavar="N", help="tokens of prompts to process (default: 512)")
    add("-n", "--n-gen", action="append", metavar="N", help="tokens to generate (default: 128)")
    add("-pg", action="append", default=[], metavar="PP,TG", help="process a prompt, then generate; timed together")
    add("-d", "--n-depth", action="append", metavar="N", help="tokens in the context beforehand (default: 0)")
    add("-b", "--batch-size", action="append", metavar="N", help="logical batch (default: 2048)")
    add("-ub", "--ubatch-size", action="append", metavar="N", help="tokens per step at most (default: 512)")
    add("-t", "--threads", action="append", metavar="N", help="threads (default: physical cores)")
    add("-ctk", "--cache-type-k", action="append", metavar="TYPE", help="type of the K cache (default: f16)")
    add("-ctv", "--cache-type-v", action="append", metavar="TYPE", help="type of the V cache (default: f16)")
    add("-r", "--repetitions", type=int, default=5, metavar="N", help="times each test is run (default: 5)")
    add("-o", "--output", choices=FORMATS, default="md", help="format of standard output (default: md)")
    add("-oe", "--output-err", choices=FORMATS, help="also print to standard error in this format")
    add("--delay", type=float, default=0.0, metavar="SECONDS", help="pause before each test (default: 0)")
    add("--no-warmup", action="store_true", help="do not run each test once beforehand")
    add("--progress", action="store_true", help="name each test as it begins even if standard error is no terminal")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Run every test; what is done by the time of an error or of Ctrl-C is printed all the same."""
    from .. import bench
    from ..hub import DEFAULT_MODEL
    from .console import fetch, say

    if args.repetitions < 1:
        raise UsageError(f"-r {args.repetitions}: give a positive number")
    workloads = _workloads(args)
    threads = _numbers("-t", args.threads, [], least=1)
    batches = _numbers("-b", args.batch_size, [2048], least=1)
    ubatches = _numbers("-ub", args.ubatch_size, [512], least=1)
    types_k, types_v = _types("-ctk", args.cache_type_k), _types("-ctv", args.cache_type_v)
    names = [args.word] if args.word is not None else []
    names += [name for text in args.model or [] for name in text.split(",")]

    def progress(what: str) -> None:
        if args.progress or sys.stderr.isatty():
            say(f"pyllm bench: {what}")
        time.sleep(args.delay)

    results: list[bench.Result] = []
    try:
        for path in [fetch(name) for name in names or [DEFAULT_MODEL]]:
            for result in bench.run(
                path,
                workloads,
                n_threads=threads or [None],
                n_batch=list(dict.fromkeys(min(b, u) for b in batches for u in ubatches)),
                type_k=types_k,
                type_v=types_v,
                repetitions=args.repetitions,
                warmup=not args.no_warmup,
                progress=progress,
            ):
                results.append(result)
                for form, out in ((args.output, sys.stdout), (args.output_err, sys.stderr)):
                    if form == "jsonl":
                        out.write(bench.render([result], form))
                        out.flush()
    finally:
        for form, out in ((args.output, sys.stdout), (args.output_err, sys.stderr)):
            if results and form not in (None, "jsonl"):
                out.write(bench.render(results, form))
    return 0


def _workloads(args: argparse.Namespace) -> list[bench.Workload]:
    """The tests of one setup, in llama-bench's order: for each depth prompts, generations, pairs."""
    from ..bench import Workload

    prompts, gens = _numbers("-p", args.n_prompt, [512]), _numbers("-n", args.n_gen, [128])
    tests: list[tuple[int, int]] = [*((n, 0) for n in prompts), *((0, n) for n in gens), *map(_pair, args.pg)]
    depths = _numbers("-d", args.n_depth, [0])
    workloads = [Workload(p, g, depth) for depth in depths for p, g in tests if p or g]
    if not workloads:
        raise UsageError("there is nothing to measure: -p, -n and -pg are all 0")
    return workloads


# ---- lists --------------------------------------------------------------------------------------------------


def _numbers(flag: str, texts: list[str] | None, default: list[int], least: int = 0) -> list[int]:
    """The numbers of "128,256", "128-512+128", "1-8*2", given once or more."""
    if not texts:
        return default
    numbers: list[int] = []
    for part in (p for text in texts for p in text.split(",")):
        match = _RANGE.fullmatch(part.strip())
        if not match:
            raise UsageError(f"{flag} {part}: write a number, or a range as in 128-512+128 or 1-8*2")
        first, last = int(match[1]), int(match[2] or match[1])
        factor, step = match[3] == "*", int(match[4] or 1)
        if last < first or (last > first and (step < 1 or (factor and (step < 2 or first < 1)))):
            raise UsageError(f"{flag} {part}: this range never ends or never begins")
        while first <= last:
            numbers.append(first)
            first = first * step if factor else first + step
    if any(n < least for n in numbers):
        raise UsageError(f"{flag}: every number must be at least {least}")
    return numbers


def _pair(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if not match:
        raise UsageError(f"-pg {text}: write tokens of prompt and of generation, as in 512,128")
    return int(match[1]), int(match[2])


def _types(flag: str, texts: list[str] | None) -> list[str]:
    types = [t.strip() for text in texts or ["f16"] for t in text.split(",")]
    for t in types:
        if t not in KV_TYPES:
            raise UsageError(f"{flag} {t}: choose from {', '.join(KV_TYPES)}")
    return types
