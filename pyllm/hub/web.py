"""Plain https downloads that resume: Range with If-Range, so that a file that changed starts again."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from ..errors import DownloadError
from .cache import DATA_NAME, RESUME_MARK, Progress, Sink, check_space, human
from .sources import file_name, safe_relpath

TIMEOUT_SECONDS = 30.0
TRIES = 5  # in a row without a new byte
BACKOFF_SECONDS = 0.2  # doubled after every try
CHUNK = 1 << 18


class _Again(Exception):
    """The connection broke; the reason. Another request may succeed."""


class WebSource:
    """https://host/path.gguf. http:// is accepted for this machine's own addresses only."""

    resumable = True

    def __init__(self, text: str) -> None:
        parts = urlsplit(text)
        if not parts.hostname or not file_name(text):
            raise DownloadError(f"{text!r} is not the address of a file")
        if parts.username or parts.password:
            raise DownloadError("an address with a password in it is refused: it would be written to the cache")
        _check_scheme(text)
        self.text = text
        # A query may be long or secret: only its hash goes into the place.
        suffix = f"#{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}" if parts.query else ""
        self.relpath = safe_relpath(parts.scheme, parts.netloc.lower() + suffix, unquote(parts.path))

    def fetch(self, work: Path, size: int, progress: Progress) -> tuple[Path, str]:
        """See Source.fetch."""
        data, mark = work / DATA_NAME, work / RESUME_MARK
        state = _read_mark(mark, self.text)
        keep = data.stat().st_size if state and data.exists() else 0
        sink = Sink(data, "download", size or None, progress, keep=keep)
        tries = 0
        try:
            while True:
                before = sink.size
                try:
                    self._request(sink, mark, state, size)
                    break
                except _Again as e:
                    state = _read_mark(mark, self.text)
                    tries = tries + 1 if sink.size <= before else 1
                    if tries >= TRIES:
                        raise DownloadError(
                            f"{self.text} stopped at {human(sink.size)}"
                            + (f" of {human(sink.total)}" if sink.total else "")
                            + f" ({e}). Pull it again to go on from there."
                        ) from e
                    time.sleep(min(BACKOFF_SECONDS * 2**tries, 5.0))
            sink.close(sync=True)
        finally:
            sink.close()
        return data, sink.sha256()

    def _request(self, sink: Sink, mark: Path, state: dict[str, Any], size: int) -> None:
        """One request: append what is missing to the sink. _Again when it broke off, DownloadError when it is
        of no use to try again."""
        headers = {"User-Agent": "pyllm", "Accept-Encoding": "identity"}
        validator = str(state.get("validator", ""))
        if sink.size and validator:
            headers["Range"] = f"bytes={sink.size}-"
            headers["If-Range"] = validator
        elif sink.size:
            sink.restart()
        request = urllib.request.Request(self.text, headers=headers)
        try:
            with _opener(self.text).open(request, timeout=TIMEOUT_SECONDS) as response:
                total = _total(response, sink, validator)
                if size and total is not None and total != size:
                    raise DownloadError(f"{self.text} has {total} bytes, the catalogue says {size}: not the same file")
                sink.total = total if total is not None else size or None
                check_space(sink.path.parent, (sink.total or 0) - sink.size)
                _write_mark(mark, self.text, _validator(response))
                _copy(response, sink)
        except urllib.error.HTTPError as e:
            with e:
                if e.code == 416 and sink.size:  # the file is shorter now, or we have all of it and asked for more
                    sink.restart()
                    raise _Again("the file changed") from e
                if e.code in (408, 425, 429) or e.code >= 500:
                    raise _Again(f"HTTP {e.code} {e.reason}") from e
                raise DownloadError(f"{self.text}: HTTP {e.code} {e.reason}") from e
        except urllib.error.URLError as e:
            if isinstance(e.reason, ssl.SSLCertVerificationError):
                raise DownloadError(f"{self.text}: {e.reason.verify_message} (certificate)") from e
            raise _Again(str(e.reason)) from e
        except (TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError) as e:
            raise _Again(str(e) or type(e).__name__) from e
        if sink.total is not None and sink.size < sink.total:
            raise _Again("the connection was closed early")


def _copy(response: IO[bytes], sink: Sink) -> None:
    while piece := response.read(CHUNK):
        if sink.total is not None and sink.size + len(piece) > sink.total:
            raise DownloadError(f"the server sent more than the {sink.total} bytes that it announced")
        sink.write(piece)


def _total(response: Any, sink: Sink, validator: str) -> int | None:
    """The size of the whole file by this response; the sink starts again if the server sends all of it."""
    if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
        raise DownloadError(f"the server insists on Content-Encoding {response.headers['Content-Encoding']}")
    length = response.headers.get("Content-Length")
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != sink.size or _validator(response) not in ("", validator):
            sink.restart()
            raise _Again("the server answered with another range or another file")
        return None if match[3] == "*" else int(match[3])
    if sink.size:
        sink.restart()
    return int(length) if length and length.isdigit() else None


def _validator(response: Any) -> str:
    """What identifies this version of the file: a strong ETag, else the date of its last change."""
    etag = (response.headers.get("ETag") or "").strip()
    if etag.startswith('"'):
        return str(etag)
    return (response.headers.get("Last-Modified") or "").strip()


def _read_mark(mark: Path, url: str) -> dict[str, Any]:
    try:
        state = json.loads(mark.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and state.get("url") == url else {}


def _write_mark(mark: Path, url: str, validator: str) -> None:
    if validator:
        temporary = mark.with_suffix(".tmp")
        temporary.write_text(json.dumps({"url": url, "validator": validator}), "utf-8")
        temporary.replace(mark)
    else:
        mark.unlink(missing_ok=True)


# ---- transport -----------------------------------------------------------------------------------


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return
    raise DownloadError(f"{url}: only https is accepted")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something that can be read or changed on the way."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if _is_loopback(urlsplit(url).hostname):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)
