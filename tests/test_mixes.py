"""bench.mixes: what it says of quantized files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # behind the installed pyllm
from bench import mixes


def test_errors_grow_as_bits_go(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 20, "utf-8")
    model = str(data / "models" / "qwen2.gguf")
    assert mixes.main([model, "--text", str(text), "-c", "64", "--chunks", "2", "-t", "1", "F32", "Q8_0", "Q4_0"]) == 0
    table = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [line[0].strip() for line in table] == ["F32", "Q8_0", "Q4_0"]
    size, error, kl = ([float(line[k]) for line in table] for k in (1, 2, 4))
    assert size[0] > size[1] > size[2]
    assert error[0] == 0 < error[1] < 0.01 < error[2] < 0.12
    assert kl[0] < 1e-5 < kl[2] and kl[1] < kl[2]


def test_wrong_use_is_explained(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("short", "utf-8")
    model = str(data / "models" / "qwen2.gguf")
    assert mixes.main([model, "--text", str(text), "Q9"]) == 2
    assert mixes.main([model, "--text", str(text), "Q8_0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "Q9" in lines[0] and "tokens" in lines[1]
