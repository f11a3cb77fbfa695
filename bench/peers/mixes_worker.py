"""Quantizes a model as llama-quantize does: run by bench/mixes.py with a Python that has numpy and llama-cpp-python.

    python mixes_worker.py SOURCE TARGET FILE_TYPE THREADS [IMPORTANCES.npz]

IMPORTANCES: float32 arrays by tensor name. Prints a JSON object: wall-clock and CPU seconds.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np


class _Data(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t))


def main() -> None:
    source, target, file_type, threads, *importances = sys.argv[1:]
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread, params.ftype, params.allow_requantize = int(threads), int(file_type), True
    if importances:
        arrays = dict(np.load(importances[0]))
        data = (_Data * (len(arrays) + 1))()
        for entry, (name, values) in zip(data, arrays.items(), strict=False):
            entry.name, entry.size = name.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = ctypes.cast(data, type(params.imatrix))
    wall, cpu = time.perf_counter(), time.process_time()
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    if status:
        raise SystemExit(f"llama_model_quantize says {status}")
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))


main()
