"""The model cache on disk: where it lies, its locks, and how a finished file gets into it.

    CACHE/models/...            whole, checked models; a file is renamed into place and never written there
    CACHE/partial/KEY/          what a pull is working on; KEY is derived from the model's source
    CACHE/partial/KEY.lock      held (flock) by the process that pulls it; free again when that process dies

So a process that is killed at any moment leaves a whole model or none, and the next pull finds a free lock
and resumes or clears what lies in partial/.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ..errors import DownloadError

# Partial downloads that can be resumed are kept this long.
KEEP_PARTIAL_SECONDS = 7 * 24 * 3600
# Bytes that must stay free on the disk beyond what a download needs.
SPARE_BYTES = 16 << 20
RESUME_MARK = "resume.json"
DATA_NAME = "data.part"


class Progress(Protocol):
    """Called often during a pull, from one thread."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """what: "wait" (another process pulls it), "download", "unpack" or "check"; done, total: bytes."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """The Progress that shows nothing."""


def cache_dir() -> Path:
    """The cache folder: $PYLLM_HOME, else the platform's own place for caches. It need not exist yet."""
    home = os.environ.get("PYLLM_HOME")
    if home:
        return Path(home).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "pyllm"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pyllm"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg and os.path.isabs(xdg) else Path.home() / ".cache") / "pyllm"


def models_dir() -> Path:
    """Where whole models lie."""
    return cache_dir() / "models"


def partial_dir() -> Path:
    """Where pulls work."""
    return cache_dir() / "partial"


def partial_key(relpath: str) -> str:
    """The name under partial/ of the model whose place under models/ is relpath."""
    return hashlib.sha256(relpath.encode()).hexdigest()[:24]


def human(n: float) -> str:
    """Bytes for people: "98.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n) < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


# ---- disk ----------------------------------------------------------------------------------------


def check_space(folder: Path, need: int) -> None:
    """Raise DownloadError with the numbers unless `need` bytes (and a little more) are free under folder."""
    free = shutil.disk_usage(folder).free
    if need > 0 and free < need + SPARE_BYTES:
        raise DownloadError(
            f"not enough disk space in {folder}: {human(need)} needed, {human(free)} free. "
            "Free some space, or set PYLLM_HOME to a folder on another disk."
        )


@contextlib.contextmanager
def disk_errors(folder: Path, need: int = 0) -> Iterator[None]:
    """Turn the system's errors, "disk full" above all, into one clear DownloadError."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                free = human(shutil.disk_usage(folder).free)
                needed = f"{human(need)} needed, " if need else ""
                raise DownloadError(
                    f"the disk is full: {needed}{free} free in {folder}. "
                    "Free some space, or set PYLLM_HOME to a folder on another disk."
                ) from e
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DownloadError(
                f"the model cache cannot be written ({e.strerror}: {e.filename or folder}). "
                "Set PYLLM_HOME to a folder that you may write."
            ) from e
        raise DownloadError(
            f"the model cache {cache_dir()} cannot be used: {e}. PYLLM_HOME names another folder."
        ) from e


def fsync_dir(folder: Path) -> None:
    """Make a rename in this folder durable, where the system can."""
    if sys.platform == "win32":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without fsync of folders
            raise
    finally:
        os.close(fd)


def place(finished: Path, final: Path) -> None:
    """Move a whole file, already fsynced, to its place: afterwards either the old or the new name exists."""
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(finished, final)
    fsync_dir(final.parent)


# ---- locks ---------------------------------------------------------------------------------------


class FileLock:
    """An exclusive lock between processes, bound to an open file: it is free again when its holder dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def try_acquire(self) -> bool:
        """Take the lock if it is free. DownloadError if the file system has no locks."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not _lock_fd(fd):
                    os.close(fd)
                    return False
                # The holder before us may have removed the file between our open and our lock.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                        self._fd = fd
                        return True
            except OSError as e:
                os.close(fd)
                raise DownloadError(
                    f"no file locks in {self.path.parent} ({e.strerror}): set PYLLM_HOME to a folder on a local disk"
                ) from e
            os.close(fd)

    def acquire(self, progress: Progress = no_progress) -> None:
        """Wait until the lock is ours."""
        while not self.try_acquire():
            progress("wait", 0, None)
            time.sleep(0.1)

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._fd < 0:
            return
        if sys.platform != "win32":  # Windows cannot remove an open file; an unlocked file does no harm
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _lock_fd(fd: int) -> bool:
    """Lock without waiting; False if another process has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as e:
            if e.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ---- leftovers -----------------------------------------------------------------------------------


def remove_tree(folder: Path) -> int:
    """Remove a folder of partial/ and say how many bytes that freed."""
    size = tree_size(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return size


def tree_size(folder: Path) -> int:
    """Bytes in the files under folder, which may change or vanish meanwhile."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(root, name)).st_size
    return total


def clean_leftovers(skip: str = "") -> None:
    """Remove what killed pulls left in partial/, other than KEY `skip`: at once if it cannot be resumed,
    after KEEP_PARTIAL_SECONDS if it can. What a living process holds is not touched."""
    folder = partial_dir()
    if not folder.is_dir():
        return
    keys = {p.name.removesuffix(".lock") for p in folder.iterdir()} - {skip}
    for key in sorted(keys):
        work = folder / key
        with contextlib.suppress(OSError):
            mark = work / RESUME_MARK
            if mark.exists() and time.time() - mark.stat().st_mtime < KEEP_PARTIAL_SECONDS:
                continue
            with FileLock(folder / f"{key}.lock") as lock:
                if lock.try_acquire():
                    remove_tree(work)


# ---- writing -------------------------------------------------------------------------------------


class Sink:
    """Writes a file while hashing it: size and sha256 are known when the last byte is."""

    def __init__(self, path: Path, what: str, total: int | None, progress: Progress, keep: int = 0) -> None:
        """keep: bytes already in the file that stay (they are hashed now); the rest is cut off."""
        self.path = path
        self.what = what
        self.total = total
        self.progress = progress
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = open(path, "r+b" if keep else "wb")  # noqa: SIM115
        while self.size < keep:
            piece = self._file.read(min(1 << 20, keep - self.size))
            if not piece:
                break
            self._hash.update(piece)
            self.size += len(piece)
        self._file.truncate(self.size)
        self._file.seek(self.size)

    def write(self, piece: bytes) -> None:
        """Append. DownloadError when the disk is full."""
        with disk_errors(self.path.parent, (self.total or self.size) - self.size):
            self._file.write(piece)
        self._hash.update(piece)
        self.size += len(piece)
        self.progress(self.what, self.size, self.total)

    def restart(self) -> None:
        """Forget every byte written so far."""
        self._file.seek(0)
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = 0

    def sha256(self) -> str:
        """Of the bytes written so far, hexadecimal."""
        return self._hash.hexdigest()

    def close(self, sync: bool = False) -> None:
        """Close; sync: only after the bytes are on the disk."""
        if self._file.closed:
            return
        try:
            with disk_errors(self.path.parent):
                self._file.flush()
                if sync:
                    os.fsync(self._file.fileno())
        finally:
            self._file.close()


def hash_file(path: Path, progress: Progress = no_progress) -> str:
    """sha256 of a file, hexadecimal."""
    total = path.stat().st_size
    digest = hashlib.sha256()
    done = 0
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
            done += len(piece)
            progress("check", done, total)
    return digest.hexdigest()
