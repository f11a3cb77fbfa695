"""Models quantized by pyllm and by llama.cpp, mix by mix: size, error, perplexity, KL divergence, time.

    python -m bench.mixes model.gguf --text text.txt --peer /opt/lcpp/bin/python [--imatrix imatrix.gguf] [MIX ...]

The error is the root of the mean square of (new - old) over all tensors that change, relative to that of old.
Perplexity and KL divergence (from the model as it was) are those of `pyllm perplexity`, of both files alike, with
float32 activations and cache, so that they tell the weights apart and not the engines. Seconds are wall-clock time.
A model whose matrices are quantized already is taken as if its values were the original. The peer's Python needs
numpy and llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyllm import hub
from pyllm.errors import PyllmError
from pyllm.gguf import GGUFFile
from pyllm.machine import default_threads
from pyllm.perplexity import Scores
from pyllm.quant import MIXES, Imatrix, find_mix, quantize
from pyllm.tokenizer import Tokenizer

from .fidelity import BASE, Fidelity, Way, against, chunks, run
from .results import markdown

WORKER = Path(__file__).parent / "peers" / "mixes_worker.py"


@dataclass(frozen=True)
class Made:
    """A quantized file. size: bytes of its tensors."""

    size: int
    seconds: float
    error: float
    fidelity: Fidelity


def error(source: Path, target: Path) -> tuple[int, float]:
    """Bytes of the target's tensors, and the relative error of those that changed."""
    off = whole = 0.0
    with GGUFFile.open(source) as a, GGUFFile.open(target) as b:
        for name, new in b.tensors.items():
            old = a.tensors[name]
            if new.type == old.type:
                continue
            x = old.dequantize()
            off += float(((new.dequantize() - x) ** 2).sum(dtype=np.float64))
            whole += float((x**2).sum(dtype=np.float64))
        return sum(t.nbytes for t in b.tensors.values()), (off / whole) ** 0.5 if whole else 0.0


class Judge:
    """Perplexity and divergence from the source of files that are made from it."""

    def __init__(self, source: Path, text: str, n_ctx: int, limit: int | None, threads: int, folder: Path) -> None:
        with GGUFFile.open(source) as file:
            tokenizer = Tokenizer.from_gguf(file)
        self.cut = chunks(tokenizer, tokenizer.encode(text), n_ctx, limit)
        self.threads, self.folder, self.n = threads, folder, 0
        self.source = self._run(source, save=True)

    def _run(self, path: Path, save: bool = False) -> Fidelity:
        total = Scores()
        way = Way("", BASE.type_k, BASE.type_v, BASE.compute)
        for i, (chunk, found) in enumerate(
            zip(self.cut, run(way, str(path), self.cut, self.threads, self.folder), strict=True)
        ):
            file = self.folder / f"base-{i}.npy"
            if save:
                np.save(file, found)
            total += against(chunk, found, None if save else np.load(file, mmap_mode="r"))
        return Fidelity.of(total)

    def made(self, source: Path, target: Path, seconds: float) -> Made:
        size, off = error(source, target)
        return Made(size, seconds, off, self._run(target))


def peer(python: str, source: Path, target: Path, mix: str, threads: int, importances: Path | None) -> float:
    """Let llama.cpp make the file: seconds."""
    command = [python, str(WORKER), str(source), str(target), str(MIXES[mix].file_type), str(threads)]
    command += [str(importances)] if importances else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout)["wall"])


def table(source: Fidelity, rows: Sequence[tuple[str, Made, Made | None]]) -> str:
    """Markdown; figures of the peer after a slash."""

    def both(ours: Any, theirs: Any, form: str) -> str:
        return f"{ours:{form}}" if theirs is None else f"{ours:{form}} / {theirs:{form}}"

    lines = [["mix", "MB", "error", "perplexity", "KL mean", "same top", "seconds"]]
    for mix, a, b in rows:
        f, g = a.fidelity, b.fidelity if b else None
        lines.append(
            [
                mix,
                both(a.size / 1e6, b and b.size / 1e6, ".1f"),
                both(a.error, b and b.error, ".5f"),
                both(f.perplexity, g and g.perplexity, ".4f"),
                both(f.kl_mean, g and g.kl_mean, ".5f"),
                both(f.same_top, g and g.same_top, ".2%"),
                both(a.seconds, b and b.seconds, ".1f"),
            ]
        )
    return f"perplexity of the source: {source.perplexity:.4f}\n\n{markdown(lines)}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.mixes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="path, name or source, as for pyllm run")
    add("mixes", nargs="*", metavar="MIX", help="default: all but those of float types and TQ1_0, TQ2_0, Q2_K_S")
    add("--text", type=Path, required=True, help="UTF-8")
    add("--peer", metavar="PYTHON", help="quantize with this Python's llama.cpp too")
    add("--imatrix", type=Path, help="importances, for both")
    add("-c", "--ctx-size", type=int, default=512, metavar="N", help="tokens of a chunk (default: 512)")
    add("--chunks", type=int, default=4, metavar="N", help="chunks at most (default: 4); 0: all")
    add("-t", "--threads", type=int, default=default_threads(), metavar="N")
    args = parser.parse_intermixed_args(argv)
    left_out = {"F32", "F16", "BF16", "TQ1_0", "TQ2_0", "Q2_K_S"}
    rows: list[tuple[str, Made, Made | None]] = []
    try:
        mixes = [find_mix(m).name for m in args.mixes] or [m for m in MIXES if m not in left_out]
        source = hub.resolve(args.model)
        imatrix = Imatrix.load(args.imatrix) if args.imatrix else None
        with tempfile.TemporaryDirectory() as name:
            folder, importances = Path(name), None
            if imatrix:
                importances = folder / "importances.npz"
                np.savez(importances, **{k: v for k in imatrix.sums if (v := imatrix.importance(k)) is not None})
            judge = Judge(
                source, args.text.read_text("utf-8"), args.ctx_size, args.chunks or None, args.threads, folder
            )
            ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
            for mix in mixes:
                start = time.perf_counter()
                quantize(source, ours, mix, imatrix=imatrix, allow_requantize=True, n_threads=args.threads)
                a, b = judge.made(source, ours, time.perf_counter() - start), None
                if args.peer:
                    b = judge.made(source, theirs, peer(args.peer, source, theirs, mix, args.threads, importances))
                rows.append((mix, a, b))
                print(table(judge.source, rows[-1:]).splitlines()[-1], file=sys.stderr)
    except (PyllmError, ValueError, OSError, subprocess.CalledProcessError) as e:
        print(f"mixes: {e}", file=sys.stderr)
        return 2
    print(table(judge.source, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
