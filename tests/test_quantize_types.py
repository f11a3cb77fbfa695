"""Each tensor gets the type that llama.cpp gives it: tests/quantize_models.py says how that was found out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import quantize_models as models

from pyllm.gguf import GGUFFile
from pyllm.quant.mix import choose, find_mix, find_type

CASES = models.cases()


@pytest.fixture(scope="module")
def expected(data: Path) -> dict[str, str]:
    return dict(json.loads((data / "quantize" / "types.json").read_text()))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for name, spec in models.MODELS.items():
        models.write(spec, folder / name)
    return {name: folder / name for name in models.MODELS}


def chosen(path: Path, mix: str, options: dict[str, Any]) -> str:
    with GGUFFile.open(path) as file:
        choices = choose(
            file,
            find_mix(mix),
            tensor_types=[(pattern, find_type(kind)) for pattern, kind in options.get("tensor_types", ())],
            output_type=find_type(options["output_type"]) if "output_type" in options else None,
            embedding_type=find_type(options["embedding_type"]) if "embedding_type" in options else None,
            pure=options.get("pure", False),
            leave_output=options.get("leave_output", False),
            has_imatrix=options.get("imatrix", False),
        )
        assert {c.tensor.name for c in choices} == file.tensors.keys()
        return models.counted([c.type.name for c in choices])


def test_expectations_are_of_these_cases(expected: dict[str, str]) -> None:
    assert expected.keys() == CASES.keys()


@pytest.mark.parametrize("model", models.MODELS)
def test_mixes(model: str, expected: dict[str, str], files: dict[str, Path]) -> None:
    names = [case for case in CASES if CASES[case][0] == model]
    ours = {case: chosen(files[model], *CASES[case][1:]) for case in names}
    assert ours == {case: expected[case] for case in names}
