"""What README.md says is so: its example runs, its tables are complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from pyllm.models import architectures

README = (ROOT / "README.md").read_text(encoding="utf-8")


def python(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Away from the source tree, so that what is imported is what these tests import."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_example_runs(smollm2: Path, tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    example = example.replace('"smollm2"', repr(str(smollm2)))
    done = python("-c", example, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout and "length 32" in done.stdout


def test_architectures() -> None:
    """docs/MODELS.md lists them all, and CONTRIBUTING.md shows a file as it is."""
    text = (ROOT / "docs" / "MODELS.md").read_text(encoding="utf-8")
    assert [n.replace("-", "_") for n in re.findall(r"^\| `([\w-]+)` \|", text, flags=re.M)] == architectures()
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.S)
    assert shown == (ROOT / "pyllm" / "models" / "smollm3.py").read_text(encoding="utf-8")


def test_commands(tmp_path: Path) -> None:
    done = python("-m", "pyllm", "--help", cwd=tmp_path)
    assert re.findall(r"^\| `pyllm (\w+)`", README, flags=re.M) == re.findall(r"^    (\w+)\b", done.stdout, flags=re.M)


def test_environment_variables() -> None:
    """Every variable that the code reads is in the table, and the other way round."""
    files = [p for d in ("pyllm", "csrc", "tests") for p in (ROOT / d).rglob("*") if p.suffix in (".py", ".c")]
    code = "\n".join(p.read_text(encoding="utf-8") for p in files if p != Path(__file__))
    read = set(re.findall(r"(?:environ\.get\(|environ\[|getenv\()\s*\"(PYLLM_\w+)\"", code))
    assert set(re.findall(r"^\| `(PYLLM_\w+)`", README, flags=re.M)) == read
