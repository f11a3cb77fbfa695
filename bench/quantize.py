"""Quantization beside llama.cpp's: error and speed of each type, without and with importances, on one thread.

    python -m bench.quantize --peer /opt/lcpp/bin/python [--tensor model.gguf:blk.0.ffn_up.weight] [TYPE ...]

The error is sqrt(mean(w * (x - y)^2)) of what the blocks stand for, w being 1 or the importances; speeds are megabytes
of float32 per second of CPU time, the best of some runs. Rows are random: `bell` like a normal distribution, `tails`
with far outliers; or those of a model's tensor, widened. The peer's Python needs numpy and llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyllm._lib import ffi, lib

WORKER = Path(__file__).parent / "peers" / "quantize_worker.py"
NAMES = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
         "IQ4_XS", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0")  # fmt: skip
REPEATS = 5


@dataclass(frozen=True)
class Kind:
    id: int
    block: int
    bytes: int


def kinds() -> dict[str, Kind]:
    """The library's table of tensor types."""
    found = {}
    i = 0
    while (info := lib.pl_type_at(i)) != ffi.NULL:
        found[ffi.string(info.name).decode()] = Kind(info.id, info.block, info.bytes)
        i += 1
    return found


KINDS = kinds()


def random_rows(shape: str, rows: int, cols: int, seed: int) -> np.ndarray:
    """[rows][cols] float32, made by exact operations alone, so that they are the same everywhere."""
    rng = np.random.default_rng(seed)
    x = rng.random((rows, cols))
    for _ in range(5):
        x += rng.random((rows, cols))
    x = (x - 3) * 0.0625
    if shape == "tails":
        x /= 0.0625 + rng.random((rows, cols))
    return x.astype(np.float32)


def random_weights(cols: int, seed: int) -> np.ndarray:
    """[cols] float32 in about 0 .. 20, most of them small, as the mean squares of activations are."""
    rng = np.random.default_rng(seed)
    return (rng.random(cols) / (0.05 + rng.random(cols))).astype(np.float32)


def tensor_rows(text: str, rows: int) -> np.ndarray:
    """The first rows of FILE:TENSOR, widened to float32."""
    from pyllm.gguf import GGUFFile

    path, _, name = text.rpartition(":")
    with GGUFFile.open(path) as file:
        info = file.tensors[name]
        n = min(info.rows, rows)
        out = np.empty((n, info.cols), np.float32)
        source = ffi.from_buffer(info.data)
        if lib.pl_dequantize(info.type.id, source, ffi.cast("float *", ffi.from_buffer(out)), out.size) < 0:
            raise SystemExit(f"{name} is of type {info.type.name}, which cannot be widened")
    return out


def encode(name: str, x: np.ndarray, w: np.ndarray | None = None, repeats: int = 1) -> tuple[np.ndarray, float]:
    """The blocks of x [rows][cols] as bytes, and the least CPU seconds."""
    kind = KINDS[name]
    rows, cols = x.shape
    out = np.zeros(x.size // kind.block * kind.bytes, np.uint8)
    weights = ffi.NULL if w is None else ffi.cast("float *", ffi.from_buffer(w))
    times = []
    for _ in range(repeats):
        start = time.process_time()
        rc = lib.pl_quantize(
            kind.id, ffi.cast("float *", ffi.from_buffer(x)), rows, cols, weights, ffi.from_buffer(out)
        )
        times.append(time.process_time() - start)
        if rc < 0:
            raise ValueError(f"pl_quantize to {name}: error {rc}")
    return out, min(times)


def error(name: str, blocks: np.ndarray, x: np.ndarray, w: np.ndarray | None = None) -> float:
    """sqrt(mean(w * (x - y)^2)) of the values y that the blocks stand for."""
    y = np.empty_like(x)
    rc = lib.pl_dequantize(KINDS[name].id, ffi.from_buffer(blocks), ffi.cast("float *", ffi.from_buffer(y)), y.size)
    if rc < 0:
        raise ValueError(f"pl_dequantize of {name}: error {rc}")
    squares = (x.astype(np.float64) - y) ** 2
    return float(np.sqrt((squares if w is None else squares * w).mean()))


def peer_blocks(
    python: str, names: list[str], x: np.ndarray, w: np.ndarray | None, repeats: int = 1
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The blocks and least CPU seconds of llama.cpp."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "x.npy", x)
        if w is not None:
            np.save(Path(folder) / "w.npy", w)
        command = [python, str(WORKER), folder, str(repeats), *(f"{n}={KINDS[n].id}" for n in names)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return {n: np.load(Path(folder) / f"{n}.npy") for n in names}, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="the types to measure (default: all)")
    parser.add_argument("--peer", help="a Python that has llama-cpp-python")
    parser.add_argument("--tensor", metavar="FILE:TENSOR", help="rows of this tensor instead of random ones")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--cols", type=int, default=4096, help="of random rows")
    parser.add_argument("--level", default="", help="the CPU level, as in PYLLM_CPU")
    args = parser.parse_args()
    for level in range(lib.pl_cpu_levels()):
        if ffi.string(lib.pl_cpu_level_name(level)).decode() == args.level and lib.pl_cpu_set_level(level) < 0:
            parser.error(f"this CPU lacks {args.level}")
    names = [n.upper() for n in args.types] or list(NAMES)
    unknown = [n for n in names if n not in NAMES]
    if unknown:
        parser.error(f"no such type: {', '.join(unknown)}")
    if args.tensor:
        data = {"tensor": tensor_rows(args.tensor, args.rows)}
    else:
        data = {shape: random_rows(shape, args.rows, args.cols, 1) for shape in ("bell", "tails")}
    print(f"{'type':8}{'rows':8}{'weights':8}{'error':>11}{'peer':>11}{'ratio':>8}{'MB/s':>8}{'peer':>8}{'ratio':>8}")
    for shape, x in data.items():
        fitting = [n for n in names if x.shape[1] % KINDS[n].block == 0]
        for w in (None, random_weights(x.shape[1], 2)):
            blocks, seconds = peer_blocks(args.peer, fitting, x, w, REPEATS) if args.peer else ({}, {})
            for name in fitting:
                ours, took = encode(name, x, w, REPEATS)
                line = f"{name:8}{shape:8}{'no' if w is None else 'yes':8}{(mine := error(name, ours, x, w)):11.4e}"
                if args.peer:
                    theirs = error(name, blocks[name], x, w)
                    line += f"{theirs:11.4e}{mine / theirs:8.4f}{x.nbytes / took / 1e6:8.0f}"
                    line += f"{x.nbytes / seconds[name] / 1e6:8.0f}{seconds[name] / took:8.2f}"
                else:
                    line += f"{'':19}{x.nbytes / took / 1e6:8.0f}"
                print(line)


if __name__ == "__main__":
    main()
