"""docs/VERIFIED.md is complete and as the tests have it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import random_models
import test_models
import test_tokenizer
import verified
from conftest import ROOT

from pyllm.gguf import GGUFFile
from pyllm.models import architectures
from pyllm.tokenizer import pre


def test_the_file_is_what_the_tests_say() -> None:
    assert verified.TARGET.read_text(encoding="utf-8") == verified.text(), "python tests/verified.py"


def test_goldens_are_of_the_architectures_named(shared: Path, data: Path) -> None:
    for name in test_models.MODELS:
        folder = data / "models" if (data / "models" / f"{name}.gguf").exists() else shared / "goldens" / "models"
        with GGUFFile.open(folder / f"{name}.gguf") as file:
            assert file.architecture.replace("-", "_") == verified.GOLDENS.get(name, name)


def test_vocabularies_are_of_the_pre_tokenizers_named(shared: Path) -> None:
    for name in {*test_tokenizer.REQUIRED, *test_tokenizer.OTHERS} - verified.OTHER_VOCABULARIES:
        with GGUFFile.open(shared / "goldens" / "vocabs" / f"ggml-vocab-{name}.gguf") as file:
            found = file.metadata["tokenizer.ggml.pre"]
            assert pre.ALIASES.get(found, found) == name, name


def test_models_md_says_the_same() -> None:
    """The column "held against" of docs/MODELS.md."""
    lines = (ROOT / "docs" / "MODELS.md").read_text(encoding="utf-8").splitlines()
    said = {m[1]: line.split(" | ")[-1] for line in lines if (m := re.match(r"\| `([\w-]+)` \|", line))}
    for name, (arch, goldens, peer, real) in zip(said, verified.architecture_rows(), strict=True):
        assert arch == f"`{name.replace('-', '_')}`"
        assert ("transformers" in said[name]) == bool(goldens), name
        assert ("random weights" in said[name]) == bool(peer), name
        assert ("real weights" in said[name]) == bool(real), name


@pytest.mark.parametrize("what", ["architecture", "alias", "pre-tokenizer", "values", "model", "kind", "test"])
def test_what_has_no_test_is_an_error(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "architecture":
        monkeypatch.setattr(verified, "architectures", lambda: [*architectures(), "qwen9"])
    elif what == "alias":
        monkeypatch.setitem(pre.ALIASES, "new", "none")
    elif what == "pre-tokenizer":
        monkeypatch.setitem(pre.PRE_TOKENIZERS, "new", pre.PRE_TOKENIZERS["gpt-2"])
    elif what in ("values", "model"):
        name = "NEW" if what == "values" else "TQ1_0"  # which is widened
        new = SimpleNamespace(id=0, name=name, act=1)
        monkeypatch.setattr(verified, "tensor_types", lambda: {0: new})
    elif what == "kind":
        monkeypatch.setitem(verified.KINDS, "new", verified.KINDS["gpt2"])
    else:
        monkeypatch.setitem(verified.TOKENIZERS, "gpt2", [("test_tokenizer.py::test_gone", "nothing")])
    with pytest.raises(verified.Unverified):
        verified.text()


def test_a_test_that_goes_takes_its_mark_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = verified.text()
    monkeypatch.setattr(test_models, "MODELS", [m for m in test_models.MODELS if m != "mixtral"])
    assert verified.text() == before.replace("mistral, mixtral", "mistral") != before
    monkeypatch.setattr(random_models, "MODELS", {m: x for m, x in random_models.MODELS.items() if m != "olmoe"})
    with pytest.raises(verified.Unverified, match="olmoe"):
        verified.text()
