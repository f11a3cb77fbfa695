"""The C library, loaded once. PYLLM_LIBRARY names another build of it (sanitizers, experiments)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ._abi import ffi as _ffi

ABI_VERSION = 1

# cffi objects have no useful static types; `ffi` and `lib` are Any on purpose.
ffi: Any = _ffi


def _path() -> str:
    override = os.environ.get("PYLLM_LIBRARY")
    if override:
        return override
    name = {"win32": "libpyllm.dll", "darwin": "libpyllm.dylib"}.get(sys.platform, "libpyllm.so")
    return str(Path(__file__).with_name(name))


lib: Any = ffi.dlopen(_path())
if lib.pl_abi_version() != ABI_VERSION:
    raise ImportError(f"{_path()} has ABI version {lib.pl_abi_version()}, this pyllm needs {ABI_VERSION}: rebuild it")
