"""Models on Hugging Face, through its own library (tokens, mirrors and proxies as that library is set up)."""

from __future__ import annotations

import importlib
import os
import re
import threading
from pathlib import Path
from typing import Any

from ..errors import DownloadError
from .cache import RESUME_MARK, Progress, check_space, hash_file, tree_size
from .sources import safe_relpath

_SEGMENT = r"[A-Za-z0-9._-]+"
_FORM = re.compile(rf"hf:(?P<repo>{_SEGMENT}/{_SEGMENT})(?:@(?P<revision>[^/]+))?/(?P<path>.+)")


class HfSource:
    """hf:owner/repo[@revision]/path/in/repo.gguf."""

    resumable = True

    def __init__(self, text: str) -> None:
        match = _FORM.fullmatch(text)
        if not match:
            raise DownloadError(f"{text!r} is malformed: write hf:owner/repo/file.gguf")
        self.text = text
        self.repo = match["repo"]
        self.revision = match["revision"]
        self.path = match["path"]
        where = f"{self.repo}@{self.revision}" if self.revision else self.repo
        self.relpath = safe_relpath("hf", where, self.path)

    def fetch(self, work: Path, size: int, progress: Progress) -> tuple[Path, str]:
        """See Source.fetch."""
        try:
            library: Any = importlib.import_module("huggingface_hub")
            utilities: Any = importlib.import_module("huggingface_hub.utils")
        except ImportError:
            raise DownloadError(
                f'{self.text} needs the package huggingface_hub: pip install "pyllm-engine[hf]" and try again'
            ) from None
        check_space(work, size - tree_size(work))
        (work / RESUME_MARK).write_text("{}", "utf-8")
        result: list[Any] = []

        def download() -> None:
            try:
                result.append(
                    library.hf_hub_download(self.repo, self.path, revision=self.revision, local_dir=str(work / "hf"))
                )
            except BaseException as e:
                result.append(e)

        utilities.disable_progress_bars()  # ours is enough
        thread = threading.Thread(target=download, daemon=True)
        thread.start()
        while thread.is_alive():
            done = tree_size(work / "hf")
            progress("download", min(done, size) if size else done, size or None)
            thread.join(0.05)
        outcome = result[0]
        if isinstance(outcome, BaseException):
            reason = " ".join(str(outcome).split()) or type(outcome).__name__
            raise DownloadError(f"{self.text}: {reason[:300]}") from outcome
        file = Path(outcome)
        with open(file, "rb+") as f:
            os.fsync(f.fileno())
        return file, hash_file(file, progress)
