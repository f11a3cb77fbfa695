"""Quantizes rows as llama.cpp does: run by bench/quantize.py with a Python that has numpy and llama-cpp-python.

    python quantize_worker.py FOLDER REPEATS TYPE=ID ...

FOLDER holds x.npy [rows][cols] float32 and perhaps w.npy [cols] float32, the importances. Writes TYPE.npy, the blocks
of all rows as bytes, and prints a JSON object: the least CPU seconds of each type's runs, on one thread.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp
import numpy as np


def library() -> ctypes.CDLL:
    """The part of llama-cpp-python that has ggml's quantizers."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    found = [p for p in folder.iterdir() if "ggml-base" in p.name and p.suffix in (".so", ".dylib", ".dll")]
    if not found:
        raise SystemExit(f"{folder} has no ggml-base library")
    lib = ctypes.CDLL(str(found[0]))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    lib.ggml_row_size.restype = ctypes.c_size_t
    lib.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    return lib


def main() -> None:
    folder, repeats = Path(sys.argv[1]), int(sys.argv[2])
    x = np.ascontiguousarray(np.load(folder / "x.npy"))
    weights = folder / "w.npy"
    w = np.ascontiguousarray(np.load(weights)) if weights.exists() else None
    rows, cols = x.shape
    lib = library()
    seconds: dict[str, float] = {}
    for argument in sys.argv[3:]:
        name, _, number = argument.partition("=")
        out = np.zeros(rows * lib.ggml_row_size(int(number), cols), np.uint8)
        times = []
        for _ in range(repeats):
            start = time.process_time()
            lib.ggml_quantize_chunk(
                int(number), x.ctypes.data, out.ctypes.data, 0, rows, cols, None if w is None else w.ctypes.data
            )
            times.append(time.process_time() - start)
        seconds[name] = min(times)
        np.save(folder / f"{name}.npy", out)
    print(json.dumps(seconds))


main()
