"""What the command line shows besides text: progress of long work, on a terminal's standard error only."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from .. import LLM

PATIENCE_SECONDS = 1.0
"""Work that takes less than this shows nothing."""


def say(line: str = "") -> None:
    """A line to standard error."""
    print(line, file=sys.stderr, flush=True)


class Bar:
    """One progress bar, shown only on a terminal and only once the work has taken a while; then it vanishes.

    update() may be called from any thread."""

    def __init__(self, label: str, bytes_: bool = False, patience: float = PATIENCE_SECONDS) -> None:
        """bytes_: the numbers are bytes, shown with speed; otherwise a share of the whole. patience: seconds."""
        self._bytes = bytes_
        self._state: dict[str, Any] = {"description": label, "completed": 0, "total": None}
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._lock = threading.Lock()
        self._closed = not sys.stderr.isatty()
        self._timer = threading.Timer(patience, self._show)
        self._timer.daemon = True

    def update(self, done: float, total: float | None, label: str | None = None) -> None:
        """Show that `done` of `total` is done (None: nobody knows of how much)."""
        with self._lock:
            self._state = {"description": label or self._state["description"], "completed": done, "total": total}
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, **self._state)

    def _show(self) -> None:
        from rich import progress
        from rich.console import Console

        columns: list[Any] = [progress.TextColumn("{task.description}"), progress.BarColumn()]
        if self._bytes:
            columns += [progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn()]
        else:
            columns += [progress.TaskProgressColumn(), progress.TimeRemainingColumn()]
        with self._lock:
            if self._closed:
                return
            console = Console(stderr=True, highlight=False)
            self._progress = progress.Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task(**self._state)
            self._progress.start()

    def close(self) -> None:
        """Take the bar off the screen. It does not come back."""
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._progress is not None:
                self._progress.stop()
                self._progress = None

    def __enter__(self) -> Bar:
        if not self._closed:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fetch(model: str) -> Path:
    """hub.resolve with a progress bar; one line instead where standard error is no terminal."""
    from .. import hub
    from ..hub.cache import human

    labels = {"wait": "waiting for another download of", "download": "downloading", "unpack": "unpacking"}
    told = False
    with Bar(f"downloading {model}", bytes_=True, patience=0.0) as bar:

        def progress(what: str, done: int, total: int | None) -> None:
            nonlocal told
            if not told and not sys.stderr.isatty():
                size = next((f" ({human(e.size)})" for e in hub.CATALOGUE if e.name == model.lower()), "")
                say(f"downloading {model}{size} ...")
            told = True
            bar.update(done, total, f"{labels.get(what, 'checking')} {model}")

        return hub.resolve(model, progress=progress)


def load(model: str, options: dict[str, Any], check_memory: bool = True) -> LLM:
    """A model ready to run, with progress bars for its download and its loading.

    UsageError for options out of range."""
    from .. import LLM, hub
    from .args import UsageError

    path = fetch(model)
    if options.get("n_ctx") == 0:
        from ..gguf import GGUFFile
        from ..models.hparams import Hparams

        with GGUFFile.open(path) as file:
            options = {**options, "n_ctx": Hparams.from_gguf(file).n_ctx_train}
    try:
        from ..options import ModelOptions

        ModelOptions(**options)
    except ValueError as e:
        raise UsageError(str(e)) from None
    label = model if hub.is_model(model) and len(model) < 40 else path.name
    with Bar(f"loading {label}") as bar:
        return LLM(path, check_memory=check_memory, progress=lambda share: bar.update(share, 1.0), **options)
