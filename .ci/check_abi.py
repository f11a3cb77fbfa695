"""Holds the cffi declarations against the C header: check_abi.py LIBRARY

The package loads its library in cffi's ABI mode, where nothing compares the declarations with the C code. Here the
same declarations are compiled once in API mode against csrc/pyllm.h, where the compiler does: every function's type,
every constant's value, every struct's size and offsets. The module is then loaded and compared with ABI mode's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "csrc"))
from make_abi import cdef_of  # noqa: E402


def structs(ffi: Any) -> dict[str, tuple[int, list[tuple[str, int, str]]]]:
    """Size, and name, offset and type of each field, of every struct that is declared whole."""
    found = {}
    for name in ffi.list_types()[0]:
        try:
            size = ffi.sizeof(name)  # also completes the type: an API mode module reads its structs lazily
        except (ValueError, getattr(ffi, "error", ValueError)):
            continue  # opaque
        if (kind := ffi.typeof(name)).kind == "struct":
            found[name] = (size, [(n, f.offset, f.type.cname.removeprefix("struct ")) for n, f in kind.fields])
    return found


def main() -> None:
    library = Path(sys.argv[1]).resolve()
    source = cdef_of((ROOT / "csrc" / "pyllm.h").read_text(encoding="utf-8"))
    abi, api = FFI(), FFI()
    abi.cdef(source)
    lib = abi.dlopen(str(library))
    api.cdef(source)
    api.set_source("_pyllm_api", '#include "pyllm.h"')
    with tempfile.TemporaryDirectory() as folder:
        c = Path(folder) / "_pyllm_api.c"
        module = Path(folder) / "_pyllm_api.so"
        with contextlib.redirect_stdout(None):
            api.emit_c_code(str(c))
        command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{ROOT / 'csrc'}"]
        command += [f"-I{sysconfig.get_paths()['include']}", str(c), str(library), f"-Wl,-rpath,{library.parent}"]
        subprocess.run([*command, "-o", str(module)], check=True)
        spec = importlib.util.spec_from_file_location("_pyllm_api", module)
        assert spec and spec.loader
        compiled = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compiled)
        there, here = structs(compiled.ffi), structs(abi)
        if set(here) != set(there) or not here:
            raise SystemExit(f"structs of the cdef {sorted(here)}, of the header {sorted(there)}")
        for name in here:
            if here[name] != there[name]:
                raise SystemExit(f"{name} differs:\n  cdef   {here[name]}\n  header {there[name]}")
        names = [n for n in dir(compiled.lib) if n.startswith(("pl_", "PL_"))]
        functions = constants = 0
        for name in names:
            if name.startswith("PL_"):
                constants += 1
                if getattr(lib, name) != getattr(compiled.lib, name):
                    raise SystemExit(f"{name} differs")
            else:
                functions += 1
                getattr(lib, name)  # an AttributeError when the library does not export it
    if set(names) != {n for n in dir(lib) if n.startswith(("pl_", "PL_"))}:
        raise SystemExit("the compiled module and the declarations list different names")
    nm = subprocess.run(["nm", "-D", "--defined-only", str(library)], check=True, capture_output=True, text=True)
    exported = {line.split()[-1] for line in nm.stdout.splitlines()}
    if extra := exported - set(names):
        raise SystemExit(f"the library exports what pyllm.h does not declare: {sorted(extra)}")
    print(f"cdef agrees with pyllm.h: {functions} functions, {constants} constants, {len(here)} structs")


if __name__ == "__main__":
    main()
