"""Write pyllm/_abi.py (cffi, out-of-line ABI mode) from csrc/pyllm.h: make_abi.py HEADER OUTPUT."""

import re
import sys

from cffi import FFI


def cdef_of(header: str) -> str:
    """The declarations of pyllm.h as cffi reads them: no preprocessor lines but #define of numbers, no PL_API."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    keep = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#") and not re.match(r"#define PL_[A-Z0-9_]+ -?\d+$", stripped):
            continue
        if stripped.startswith('extern "C"') or stripped == "}  // extern":
            continue
        keep.append(line)
    return "\n".join(keep).replace("PL_API ", "")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        source = cdef_of(f.read())
    ffi = FFI()
    ffi.cdef(source)
    ffi.set_source("pyllm._abi", None)
    ffi.emit_python_code(sys.argv[2])
