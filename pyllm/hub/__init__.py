"""Models by name: the catalogue, the cache on disk, and downloads that are whole or not there at all.

path = hub.resolve("smollm2")                                   # downloads it the first time
path = hub.resolve("hf:owner/repo/file.gguf", progress=show)
path = hub.resolve("./model.gguf")
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ..errors import DownloadError
from .cache import (
    FileLock,
    Progress,
    cache_dir,
    clean_leftovers,
    disk_errors,
    human,
    models_dir,
    no_progress,
    partial_dir,
    partial_key,
    place,
    remove_tree,
    tree_size,
)
from .catalogue import CATALOGUE, DEFAULT_MODEL, Entry, by_name, by_source
from .sources import FORMS, Source, is_source, parse, parts

__all__ = [
    "CATALOGUE",
    "DEFAULT_MODEL",
    "Entry",
    "LocalModel",
    "Progress",
    "cache_dir",
    "is_model",
    "is_name",
    "list_models",
    "pull",
    "remove",
    "resolve",
]

# Bytes of a broken download that are worth going on from.
WORTH_KEEPING = 64 << 10


@dataclass(frozen=True)
class LocalModel:
    """A model as `pyllm list` shows it."""

    name: str  # the catalogue's name, or the place in the cache of a model that was named by its source
    source: str  # empty if unknown
    path: Path | None  # None: not downloaded
    size: int  # bytes, on disk if it is downloaded; 0 if unknown
    licence: str
    description: str


def resolve(model: str | os.PathLike[str], progress: Progress | None = None, download: bool = True) -> Path:
    """The .gguf file that `model` means: a path, a name of the catalogue, or a source; downloaded if need be.

    Raises DownloadError when there is no such file or name, and when the download fails or is not allowed."""
    entry = _entry(model) if isinstance(model, str) else None
    if entry is None:
        return _existing_file(model)
    have = _have(entry)
    if have is not None:
        return have
    if not download:
        raise DownloadError(f"{model} is not downloaded: run `pyllm pull {model}`")
    return pull(entry.source, progress)


def is_model(text: str) -> bool:
    """Whether resolve() could mean something by this text: a name, a source, or a path that exists."""
    if is_name(text) or text.endswith(".gguf"):
        return True
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def is_name(text: str) -> bool:
    """Whether pull() could mean something by this text: a name of the catalogue, or a source."""
    return is_source(text) or by_name(text) is not None


def pull(name: str, progress: Progress | None = None) -> Path:
    """Download a model of the catalogue, or of any source, unless it is there already; returns its file.

    Several processes may pull the same model: one downloads, the others wait. Raises DownloadError."""
    entry = _entry(name)
    if entry is None:
        raise _unknown(name)
    have = _have(entry)
    if have is not None:
        return have
    texts = parts(entry.source)
    with disk_errors(cache_dir()):
        # The first part comes last: once it is there, the model is whole.
        for text in reversed(texts):
            known = entry if len(texts) == 1 else Entry(name=text, source=text)
            path = _pull_file(parse(text), known, progress or no_progress)
    return path


def list_models() -> list[LocalModel]:
    """The catalogue, downloaded or not, and then whatever else was pulled by its source."""
    models: list[LocalModel] = []
    seen: set[Path] = set()
    for entry in CATALOGUE:
        path = _have(entry)
        if path is not None:
            seen.add(path)
        models.append(LocalModel(entry.name, entry.source, path, entry.size, entry.licence, entry.description))
    for path in _files():
        if path in seen:
            continue
        source = _source_of(path.relative_to(models_dir()).as_posix())
        models.append(LocalModel(source or str(path), source, path, _disk_size(path), "", ""))
    return models


def remove(name: str) -> int:
    """Delete a downloaded model and what is left of broken downloads of it; returns the bytes freed.

    name: of the catalogue, a source, or a path inside the cache as list_models() gives it.
    Raises DownloadError if there is nothing of that name, or while another process is downloading it."""
    entry = _entry(name)
    if entry is not None:
        places = [parse(text).relpath for text in parts(entry.source)]
    elif models_dir() in Path(name).parents:
        place_of_first = Path(name).relative_to(models_dir())
        places = [place_of_first.with_name(part).as_posix() for part in parts(place_of_first.name)]
    else:
        raise _unknown(name)
    freed = found = 0
    for relpath in places:
        key = partial_key(relpath)
        with FileLock(partial_dir() / f"{key}.lock") as lock, disk_errors(cache_dir()):
            if not lock.try_acquire():
                raise DownloadError(f"{name} is being downloaded by another process: stop that first")
            final = models_dir() / PurePosixPath(relpath)
            if final.is_file():
                freed += final.stat().st_size
                final.unlink()
                found += 1
                _prune(final.parent)
            work = partial_dir() / key
            if work.exists():
                freed += remove_tree(work)
                found += 1
    if not found:
        raise DownloadError(f"{name} is not downloaded")
    return freed


# ---- inside --------------------------------------------------------------------------------------


def _entry(name: str) -> Entry | None:
    """The catalogue's entry for a name or a source, a fresh one for another source, else None."""
    if is_source(name):
        return by_source(name) or Entry(name=name, source=name)
    return by_name(name)


def _final(source: Source) -> Path:
    return models_dir() / PurePosixPath(source.relpath)


def _whole(path: Path, size: int) -> bool:
    try:
        return path.is_file() and (not size or path.stat().st_size == size)
    except OSError:
        return False


def _have(entry: Entry) -> Path | None:
    """The model's file (the first part of a split one) if all of it is in the cache."""
    paths = [_final(parse(text)) for text in parts(entry.source)]
    size = entry.size if len(paths) == 1 else 0
    return paths[0] if all(_whole(path, size) for path in paths) else None


def _pull_file(source: Source, entry: Entry, progress: Progress) -> Path:
    """One file into the cache: fetched and checked in its work folder, then renamed into place."""
    final = _final(source)
    key = partial_key(source.relpath)
    work = partial_dir() / key
    with FileLock(partial_dir() / f"{key}.lock") as lock:
        lock.acquire(progress)
        if _whole(final, entry.size):  # another process has done it meanwhile
            return final
        clean_leftovers(skip=key)
        work.mkdir(parents=True, exist_ok=True)
        keep = source.resumable
        try:
            file, digest = source.fetch(work, entry.size, progress)
            keep = False  # the bytes are complete: right or wrong, there is nothing to resume
            _check(source, entry, file, digest)
            place(file, final)
        finally:
            if not keep or tree_size(work) < WORTH_KEEPING:
                remove_tree(work)
    return final


def _check(source: Source, entry: Entry, file: Path, digest: str) -> None:
    """DownloadError unless this is the file that was asked for."""
    size = file.stat().st_size
    if entry.size and size != entry.size:
        raise DownloadError(f"{source.text} has {size} bytes instead of {entry.size}: it was thrown away")
    if entry.sha256 and digest != entry.sha256:
        raise DownloadError(
            f"{source.text} has sha256 {digest} instead of {entry.sha256}: it was damaged on the way or is "
            "not the file that this version of pyllm knows. It was thrown away; pull it again"
        )
    with open(file, "rb") as f:
        if f.read(4) != b"GGUF":
            raise DownloadError(f"{source.text} is not a GGUF file ({human(size)}): it was thrown away")


def _existing_file(model: str | os.PathLike[str]) -> Path:
    text = os.fspath(model)
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return path
        is_dir = path.is_dir()
    except (OSError, ValueError, RuntimeError) as e:
        raise DownloadError(f"{text!r} is not a path that can be opened: {e}") from e
    if is_dir:
        found = sorted(p.name for p in path.glob("*.gguf"))[:5]
        hint = f"name one of its files: {', '.join(found)}" if found else "it has no .gguf file"
        raise DownloadError(f"{text} is a folder: {hint}")
    if isinstance(model, str) and os.path.basename(text) == text and not text.endswith(".gguf"):
        raise _unknown(text)
    raise DownloadError(f"there is no file {text}")


def _unknown(name: str) -> DownloadError:
    names = [entry.name for entry in CATALOGUE]
    near = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.5)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return DownloadError(
        f"no model is called {name!r}.{meant} Known names: {', '.join(names)}. "
        f"Or give a path to a .gguf file, or {FORMS}"
    )


def _files() -> Iterator[Path]:
    """The models in the cache, split ones by their first part, in order of their names."""
    base = models_dir()
    for path in sorted(base.rglob("*.gguf")) if base.is_dir() else []:
        with contextlib.suppress(DownloadError):
            if path.is_file() and parts(path.name):
                yield path


def _source_of(relative: str) -> str:
    """The source whose place under models/ this is; empty if it cannot be told (addresses with a query)."""
    scheme, _, rest = unquote(relative).partition("/")
    text = f"{scheme}://{rest}" if scheme in ("https", "http") else f"{scheme}:{rest}"
    with contextlib.suppress(DownloadError):
        if parse(text).relpath == relative:
            return text
    return ""


def _disk_size(path: Path) -> int:
    return sum((path.parent / name).stat().st_size for name in parts(path.name) if (path.parent / name).is_file())


def _prune(folder: Path) -> None:
    """Remove folders of the cache that have become empty."""
    while folder != models_dir() and models_dir() in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
