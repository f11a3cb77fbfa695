"""A slice of tokenizer_run.py: no id differs on mixed text."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizer_run

from pyllm.gguf import GGUFFile

pytestmark = pytest.mark.native

VOCABULARIES = (
    *("gpt-2", "llama-bpe", "qwen2", "command-r", "deepseek-coder", "falcon", "mpt", "refact", "starcoder"),
    *("llama-spm", "baichuan", "nomic-bert-moe", "bert-bge"),
)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_no_id_differs(name: str, shared: Path) -> None:
    with GGUFFile.open(shared / f"goldens/vocabs/ggml-vocab-{name}.gguf") as file:
        metadata = dict(file.metadata)
    done, wrong = tokenizer_run.run(metadata, 200_000, seed=1)
    assert not wrong
    assert done >= 200_000


def test_a_difference_is_found_and_shown(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with GGUFFile.open(shared / "goldens/vocabs/ggml-vocab-gpt-2.gguf") as file:
        metadata = dict(file.metadata)
    without, ids_of, agree = tokenizer_run.compared(metadata)

    def broken(text: str) -> list[int]:
        return [*ids_of(text), 0] if "q" in text else ids_of(text)

    monkeypatch.setattr(tokenizer_run, "compared", lambda _: (without, broken, agree))
    _, wrong = tokenizer_run.run(metadata, 20_000, seed=1)
    assert wrong and set(wrong) == {"q"}
