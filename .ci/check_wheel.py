"""Checks what a wheel of this project holds: check_wheel.py FOLDER, which must hold exactly one wheel."""

from __future__ import annotations

import sys
import sysconfig
import zipfile
from pathlib import Path


def check(condition: bool, message: str) -> None:
    if not condition:
        raise SystemExit(f"wheel: {message}")


def main() -> None:
    wheels = list(Path(sys.argv[1]).glob("*.whl"))
    check(len(wheels) == 1, f"one is wanted, got {[w.name for w in wheels]}")
    name = wheels[0].name
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    check(name.startswith("pyllm_engine-") and name.endswith(f"-py3-none-{platform}.whl"), f"its name is {name}")
    with zipfile.ZipFile(wheels[0]) as z:
        files = [n for n in z.namelist() if not n.endswith("/")]
        info = next(n.rsplit("/", 1)[0] for n in files if n.endswith(".dist-info/METADATA"))
        metadata = z.read(f"{info}/METADATA").decode()
        scripts = z.read(f"{info}/entry_points.txt").decode()
    libraries = [n for n in files if n.endswith((".so", ".dylib", ".dll", ".pyd", ".a"))]
    check(libraries == ["pyllm/libpyllm.so"], f"one shared library is wanted, got {libraries}")
    for wanted in ("pyllm/_abi.py", "pyllm/py.typed", "pyllm/__init__.py", "pyllm/models/llama.py"):
        check(wanted in files, f"{wanted} is missing")
    foreign = [n for n in files if not n.startswith(("pyllm/", f"{info}/")) or "__pycache__" in n]
    check(not foreign, f"these do not belong: {foreign}")
    root = Path(__file__).resolve().parent.parent
    sources = {p.relative_to(root).as_posix() for p in (root / "pyllm").rglob("*.py")}
    check(sources <= set(files), f"these modules are missing: {sorted(sources - set(files))}")
    check("\nName: pyllm-engine\n" in metadata, "the distribution's name is not pyllm-engine")
    check("pyllm = pyllm.cli:main" in scripts, "the command `pyllm` is missing")
    print(f"{name}: {len(files)} files, {wheels[0].stat().st_size >> 10} kB")


if __name__ == "__main__":
    main()
