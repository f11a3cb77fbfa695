"""Damaged copies of a GGUF file, by seed, and a harness that opens each of them in a process of its own.

    python tests/mutate.py [--seed S] [--count N] [--check module:function] FILE...

A mutant is truncated, has bits flipped, bytes moved, cut out or put in, or numbers of its header overwritten:
mostly in the header, because that is where a file can lie. The check takes the path of the mutant: it returns
if the file works and raises GGUFError if it is refused. Everything else is a failure: another exception, a
crash, more than --limit seconds, or address space grown by more than the mapping, --memory times the file and
--slack bytes. One copy of the file serves all mutants: they are patched into it and taken out again.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# bytes of GGUF's number types (8, 9: string, array)
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# kinds of numbers that a reader has no reason to refuse, so that models with wrong ones are tried too
WEIGHTS = {"value": 6, "element": 3}
COPY = 1 << 22


@dataclass(frozen=True)
class Mutant:
    """A damage: bytes to write at offsets, in order, then the length to cut the file to."""

    seed: int
    what: str
    patches: tuple[tuple[int, bytes], ...]
    cut: int | None


class Fields:
    """Where the numbers are in a sound file's header: kind -> [(offset, bytes)]; and where it ends."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.pos = 4
        self.kinds: dict[str, list[tuple[int, int]]] = {}
        self.take("version", 4)
        n_tensors, n_pairs = self.take("n_tensors", 8), self.take("n_pairs", 8)
        for _ in range(n_pairs):
            self.skip(self.take("key length", 8))
            self.value(self.take("value type", 4))
        for _ in range(n_tensors):
            self.skip(self.take("name length", 8))
            for _ in range(self.take("n_dims", 4)):
                self.take("dimension", 8)
            self.take("tensor type", 4)
            self.take("tensor offset", 8)
        self.end = self.pos

    def take(self, kind: str, width: int) -> int:
        """Note the number here, and return it."""
        self.kinds.setdefault(kind, []).append((self.pos, width))
        self.pos += width
        return int.from_bytes(self.raw[self.pos - width : self.pos], "little")

    def skip(self, n: int) -> None:
        self.pos += n

    def value(self, type_: int) -> None:
        if type_ == 8:
            self.skip(self.take("string length", 8))
        elif type_ == 9:
            inner, n = self.take("element type", 4), self.take("element count", 8)
            if inner in WIDTHS:
                self.kinds.setdefault("element", []).append((self.pos, WIDTHS[inner]))
                self.skip(n * WIDTHS[inner])
            else:
                for _ in range(n):
                    self.value(inner)
        else:
            self.take("value", WIDTHS[type_])


class Source:
    """A sound file and its mutants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with open(path, "rb") as f:
            raw = f.read(64 << 20)
        self.fields = Fields(raw)
        self.header = raw[: self.fields.end]

    def mutant(self, seed: int) -> Mutant:
        """The same damage for the same seed, always."""
        rng = random.Random(seed)
        patches: list[tuple[int, bytes]] = []
        words: list[str] = []
        cut = None
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            kind = rng.choices(("number", "bits", "splice", "noise", "cut"), (8, 4, 3, 2, 3))[0]
            if kind == "cut":
                cut = rng.randrange(len(self.header) + 64 if rng.random() < 0.7 else self.size)
                cut = min(cut, self.size - 1)
                words.append(f"cut to {cut} bytes")
                continue
            at, new, what = getattr(self, kind)(rng)
            patches.append((at, new[: self.size - at]))
            words.append(what)
        return Mutant(seed, ", ".join(words), tuple(patches), cut)

    def place(self, rng: random.Random) -> int:
        """An offset: mostly in the header, often among its first bytes."""
        end = rng.choices((min(512, len(self.header)), len(self.header), self.size), (3, 6, 1))[0]
        return rng.randrange(end)

    def bytes_at(self, at: int, n: int) -> bytes:
        if at + n <= len(self.header):
            return self.header[at : at + n]
        with open(self.path, "rb") as f:
            f.seek(at)
            return f.read(n)

    def number(self, rng: random.Random) -> tuple[int, bytes, str]:
        """A number of the header becomes another: a border, a neighbour, one that is large for this file."""
        kinds = list(self.fields.kinds)
        kind = rng.choices(kinds, [WEIGHTS.get(k, 1) for k in kinds])[0]
        at, width = rng.choice(self.fields.kinds[kind])
        old = int.from_bytes(self.header[at : at + width], "little")
        bits = 8 * width
        new = rng.choice(
            (
                *(
                    0,
                    1,
                    2,
                    3,
                    8,
                    9,
                    32,
                    255,
                    2**16,
                    2**31 - 1,
                    2**31,
                    2**32 - 1,
                    2**32,
                    2**62,
                    2**63 - 1,
                    2**63,
                ),
                *(0x7F800000, 0x7FC00000, 0xBF800000),  # float32 infinity, NaN and -1
                *(2**64 - 1, 2**64 - 8, 2**64 - at, self.size, self.size - at, (self.size - at) // 8),
                *(
                    old + 1,
                    old - 1,
                    old * 2,
                    old // 2,
                    old ^ 1 << rng.randrange(bits),
                    -old,
                    old + 2 ** (bits - 1),
                ),
                *(rng.randrange(13), rng.randrange(64), rng.getrandbits(bits), rng.getrandbits(20)),
            )
        ) % (1 << bits)
        return at, new.to_bytes(width, "little"), f"{kind} at {at}: {old} to {new}"

    def bits(self, rng: random.Random) -> tuple[int, bytes, str]:
        """One to eight bits flip in a stretch of 16 bytes."""
        at = self.place(rng)
        raw = bytearray(self.bytes_at(at, 16))
        flips = sorted(rng.randrange(8 * len(raw)) for _ in range(rng.choice((1, 1, 2, 8))))
        for bit in flips:
            raw[bit // 8] ^= 1 << bit % 8
        return at, bytes(raw), f"bits {flips} flipped from {at}"

    def splice(self, rng: random.Random) -> tuple[int, bytes, str]:
        """Bytes are copied over others, or put in or cut out so that the header after them moves."""
        at, n = rng.randrange(len(self.header)), rng.choice((1, 2, 4, 8, rng.randrange(1, 200)))
        how = rng.randrange(3)
        if how == 0:
            origin = self.place(rng)
            return at, self.bytes_at(origin, n), f"{n} bytes from {origin} copied to {at}"
        if how == 1:
            return at, self.header[at + n :], f"{n} bytes cut out at {at}"
        return at, self.header[at - min(at, n) : at] + self.header[at:], f"{n} bytes doubled before {at}"

    def noise(self, rng: random.Random) -> tuple[int, bytes, str]:
        """A block becomes zeros, ones or random."""
        at, n = self.place(rng), rng.choice((1, 4, 8, 64, 4096))
        new = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n)))
        return at, new, f"{n} bytes of noise at {at}"


class Bench:
    """A copy of the source that is a mutant for the time of a `with` block."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        self.path = folder / source.path.name
        shutil.copyfile(source.path, self.path)
        self.path.chmod(0o600)

    @contextlib.contextmanager
    def holding(self, mutant: Mutant) -> Iterator[Path]:
        with open(self.path, "r+b") as f:
            for at, new in mutant.patches:
                f.seek(at)
                f.write(new)
            if mutant.cut is not None:
                f.truncate(mutant.cut)
        yield self.path
        spans = [(at, at + len(new)) for at, new in mutant.patches]
        if mutant.cut is not None:
            spans.append((mutant.cut, self.source.size))
        with open(self.source.path, "rb") as sound, open(self.path, "r+b") as f:
            for start, end in spans:
                sound.seek(start)
                f.seek(start)
                while start < end:
                    start += f.write(sound.read(min(COPY, end - start)))


# -- checks ------------------------------------------------------------------------------------------------


def read_all(path: Path) -> None:
    """The default check: open, ask every getter for every key, touch the ends of every tensor."""
    from pyllm.gguf import GGUFError, GGUFFile

    with GGUFFile.open(path) as f:
        for key in f.metadata:
            repr(f.metadata[key])
            for getter in (f.get_int, f.get_float, f.get_str, f.get_bool):
                with contextlib.suppress(GGUFError):
                    getter(key)
            for kind in (int, float, str, bool):
                with contextlib.suppress(GGUFError):
                    f.get_list(key, kind)
        for t in f.tensors.values():
            data = t.data
            assert data.size == t.nbytes and t.rows * t.cols == t.n_elements
            assert data[0] >= 0 and data[-1] >= 0


def generate(path: Path) -> None:
    """Load the model and let it write two tokens; any error that pyllm raises on purpose is a refusal."""
    import pyllm
    from pyllm.errors import GGUFError, PyllmError

    try:
        with pyllm.LLM(path, n_ctx=32, n_batch=32, n_seqs=1, n_threads=1) as llm:
            prompt = [*llm.tokenize("Hello, world")[:8], 0]
            out = llm.generate(prompt, max_tokens=2, temperature=0, ignore_eos=True)
            assert len(out.tokens) == 2 and isinstance(out.text, str)
    except PyllmError as e:
        raise GGUFError(str(e)) from e


def load(name: str) -> Any:
    """What "module:name" names."""
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


# -- harness -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    path: Path
    mutant: Mutant
    why: str

    def __str__(self) -> str:
        return f"{self.path.name}, seed {self.mutant.seed} ({self.mutant.what}): {self.why}"


@dataclass
class Report:
    """worked and refused count the mutants that ended well."""

    worked: int
    refused: int
    failures: list[Failure]
    slowest: float  # seconds


def run(
    path: Path,
    seeds: range,
    check: str = "mutate:read_all",
    *,
    source: str = "mutate:Source",
    limit: float = 5.0,
    memory: float = 2.0,
    slack: int = 64 << 20,
) -> Report:
    """Check the mutants of one file, in worker processes that are started again where one dies.

    source: the class that makes the mutants.
    limit: seconds per mutant. memory, slack: a worker's address space may grow by its mapping of the file,
    memory times the file's size and slack bytes.
    """
    made: Source = load(source)(path)
    report = Report(0, 0, [], 0.0)
    todo = list(seeds)
    while todo:
        job = {
            "path": str(path),
            "seeds": todo,
            "check": check,
            "source": source,
            "limit": limit,
            "memory": memory,
            "slack": slack,
        }
        worker = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=worker_env(),
        )
        out, err = worker.communicate(json.dumps(job))
        if not out:
            raise RuntimeError(f"{check} cannot even be tried on the sound {path}: {err[-4000:]}")
        lines = [json.loads(line) for line in out.splitlines()[1:]]
        for line in lines:
            report.slowest = max(report.slowest, line["seconds"])
            report.worked += line["end"] == "worked"
            report.refused += line["end"] == "refused"
            if line["end"] not in ("worked", "refused"):
                report.failures.append(Failure(path, made.mutant(line["seed"]), line["end"]))
        todo = todo[len(lines) :]
        if todo:  # the worker died of the next mutant
            why = f"the process ended with {worker.returncode}\n{err.strip()[-4000:]}"
            report.failures.append(Failure(path, made.mutant(todo.pop(0)), why))
        elif worker.returncode:
            raise RuntimeError(f"the worker failed at its end: {err[-4000:]}")
    return report


def worker_env() -> dict[str, str]:
    """Of the worker: its coverage is not measured, which would take half of its time; and it has one heap, since glibc
    otherwise sets 64 MiB of address space aside for a new thread's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    return {**env, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "MALLOC_ARENA_MAX": "1"}


def work() -> None:
    """The worker: a job as JSON on stdin; on stdout "ready", then one line of JSON per mutant."""
    import time

    from pyllm.errors import GGUFError

    job = json.load(sys.stdin)
    source: Source = load(job["source"])(Path(job["path"]))
    check = load(job["check"])
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(source, Path(folder))
        with contextlib.suppress(GGUFError):
            check(bench.path)  # imports and caches are not what is measured
        print("ready", flush=True)
        limit_memory(source.size * (1 + job["memory"]) + job["slack"])
        for seed in job["seeds"]:
            start = time.perf_counter()
            faulthandler.dump_traceback_later(job["limit"], exit=True)
            with bench.holding(source.mutant(seed)) as path:
                try:
                    check(path)
                    end = "worked"
                except GGUFError:
                    end = "refused"
                except BaseException:
                    end = traceback.format_exc()
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"seed": seed, "end": end, "seconds": time.perf_counter() - start}), flush=True)


def limit_memory(more: float) -> None:
    """Let the address space grow by so many bytes from here on; on Linux, nothing happens elsewhere."""
    status = Path("/proc/self/status")
    if status.exists():
        import resource

        now = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line[:7] == "VmSize:")
        resource.setrlimit(resource.RLIMIT_AS, (now + int(more), resource.RLIM_INFINITY))


def main() -> int:
    parser = argparse.ArgumentParser(description="Open damaged copies of GGUF files.")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1000, help="mutants per file")
    parser.add_argument("--check", default="mutate:read_all", help="module:function that takes a path")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds per mutant")
    parser.add_argument("--memory", type=float, default=2.0, help="bytes of memory per byte of the file")
    parser.add_argument("--slack", type=int, default=64 << 20, help="bytes of memory besides")
    args = parser.parse_args()
    if args.worker:
        work()
        return 0
    failed = False
    for path in args.files:
        seeds = range(args.seed, args.seed + args.count)
        r = run(path, seeds, args.check, limit=args.limit, memory=args.memory, slack=args.slack)
        counts = f"{r.worked} worked, {r.refused} refused, {len(r.failures)} failed"
        print(f"{path}: {counts}, slowest {r.slowest:.2f} s")
        for f in r.failures:
            print(f"  {f}")
        failed |= bool(r.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
