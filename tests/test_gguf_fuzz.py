"""The GGUF reader on random files and on mutants of real ones."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import gguf_bytes as g
import mutate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllm.gguf import GGUFError, GGUFFile, header

# -- random files --------------------------------------------------------------------------------------------

RANGES = {g.U8: (0, 2**8), g.I8: (-(2**7), 2**7), g.U16: (0, 2**16), g.I16: (-(2**15), 2**15)}
RANGES |= {g.U32: (0, 2**32), g.I32: (-(2**31), 2**31), g.U64: (0, 2**64), g.I64: (-(2**63), 2**63)}
NUMBERS: dict[int, st.SearchStrategy[Any]] = {t: st.integers(a, b - 1) for t, (a, b) in RANGES.items()}
NUMBERS |= {g.F32: st.floats(width=32), g.F64: st.floats(), g.BOOL: st.integers(0, 1)}
TEXT = st.text(max_size=20)


@st.composite
def array_bodies(draw: st.DrawFn, depth: int = 1) -> tuple[bytes, list[Any]]:
    """An array's bytes and its values."""
    kind = draw(st.sampled_from([*NUMBERS, g.STRING] + ([g.ARRAY] if depth < header.MAX_DEPTH else [])))
    if kind == g.ARRAY:
        inner = draw(st.lists(array_bodies(depth + 1), max_size=3))
        return g.array_body(kind, [b for b, _ in inner]), [v for _, v in inner]
    values = draw(st.lists(TEXT if kind == g.STRING else NUMBERS[kind], max_size=20))
    return g.array_body(kind, values), [bool(v) for v in values] if kind == g.BOOL else values


@st.composite
def values(draw: st.DrawFn) -> tuple[bytes, Any]:
    """A typed value's bytes, and the value."""
    kind = draw(st.sampled_from([*NUMBERS, g.STRING, g.ARRAY]))
    if kind == g.ARRAY:
        body, v = draw(array_bodies())
        return g.number(g.U32, g.ARRAY) + body, v
    v = draw(TEXT if kind == g.STRING else NUMBERS[kind])
    return g.scalar(kind, v), bool(v) if kind == g.BOOL else v


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, dict[str, Any], dict[str, g.Tensor]]:
    """A sound file, its metadata and its tensors."""
    types = list(header.tensor_types().values())
    keys = TEXT.filter(lambda k: k != "general.alignment" and not k.startswith("split."))
    pairs = draw(st.dictionaries(keys, values(), max_size=8))
    alignment = draw(st.sampled_from([8, 32, 256]))
    tensors = []
    for name in draw(st.lists(TEXT, max_size=4, unique=True)):
        type_ = draw(st.sampled_from(types))
        rows = draw(st.lists(st.integers(1, 4), max_size=3))
        blocks = draw(st.integers(1, 3))
        data = draw(st.randoms()).randbytes(blocks * type_.bytes * int(np.prod(rows)))
        tensors.append(g.Tensor(name, [blocks * type_.block, *rows], data, type_.id))
    content = g.file(
        [("general.alignment", g.scalar(g.U32, alignment)), *((k, b) for k, (b, _) in pairs.items())],
        tensors,
        version=draw(st.sampled_from([2, 3])),
        alignment=alignment,
    )
    metadata = {"general.alignment": alignment, **{k: v for k, (_, v) in pairs.items()}}
    return content, metadata, {str(t.name): t for t in tensors}


def equal(found: Any, wanted: Any) -> bool:
    """Equal values of equal types; NaN is equal to itself."""
    if isinstance(wanted, list):
        found = found.tolist() if isinstance(found, np.ndarray) else found
        return len(found) == len(wanted) and all(map(equal, found, wanted))
    return type(found) is type(wanted) and (found == wanted or (found != found and wanted != wanted))


@settings(max_examples=150, deadline=None)
@given(files())
def test_random_files_round_trip(file: tuple[bytes, dict[str, Any], dict[str, g.Tensor]]) -> None:
    content, metadata, tensors = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        path.write_bytes(content)
        with GGUFFile.open(path) as f:
            assert list(f.metadata) == list(metadata)
            assert all(equal(f.metadata[k], v) for k, v in metadata.items())
            assert list(f.tensors) == list(tensors)
            for name, t in tensors.items():
                mine = f.tensors[name]
                assert (mine.shape, mine.type.id, mine.data.tobytes()) == (tuple(t.shape), t.type, t.data)


PATCHES = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=9))


@settings(max_examples=300, deadline=None)
@given(files(), st.lists(PATCHES, max_size=4), st.floats(0, 1))
def test_random_damage_is_refused_or_harmless(
    file: tuple[bytes, Any, Any], patches: list[tuple[float, bytes]], keep: float
) -> None:
    content = bytearray(file[0])
    for place, new in patches:
        at = int(place * len(content))
        content[at : at + len(new)] = new[: len(content) - at]
    if keep < 0.5:
        del content[int(2 * keep * len(content)) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        path.write_bytes(content)
        try:
            mutate.read_all(path)
        except GGUFError as e:
            assert str(e).startswith(f"{path}: ")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_after_the_version(tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        path.write_bytes(b"GGUF\3\0\0\0" + tail)
        try:
            mutate.read_all(path)
        except GGUFError as e:
            assert str(e).startswith(f"{path}: ")


# -- mutants of real files -----------------------------------------------------------------------------------


def test_bench_restores_the_file(tmp_path: Path) -> None:
    """Every mutant is taken out again, is the same for the same seed, and most differ from the file."""
    path = tmp_path / "sound.gguf"
    pairs = [("a", g.array(g.STRING, ["x", "y"])), ("b", g.array(g.U16, [1, 2])), ("c", g.scalar(g.F32, 1))]
    path.write_bytes(g.file(pairs, [g.Tensor("t", [64], bytes(256))]))
    sound = path.read_bytes()
    source = mutate.Source(path)
    (tmp_path / "bench").mkdir()
    bench = mutate.Bench(source, tmp_path / "bench")
    mutants = set()
    for seed in range(300):
        assert source.mutant(seed) == mutate.Source(path).mutant(seed)
        with bench.holding(source.mutant(seed)) as p:
            mutants.add(p.read_bytes())
        assert bench.path.read_bytes() == sound
    assert all(len(m) <= len(sound) for m in mutants)
    assert len(mutants - {sound}) > 200


def test_mutants_of_the_goldens(shared: Path) -> None:
    """Some of each; `python tests/mutate.py` makes as many as wanted."""
    for name in ("models/llama_tied", "models/qwen3", "quant/quant-Q4_K_M", "vocabs/ggml-vocab-llama-spm"):
        report = mutate.run(shared / "goldens" / f"{name}.gguf", range(250))
        assert not report.failures, "\n".join(map(str, report.failures))
        assert report.refused + report.worked == 250
        assert min(report.refused, report.worked) > 10


def test_mutants_of_smollm2(smollm2: Path) -> None:
    report = mutate.run(smollm2, range(100))
    assert not report.failures, "\n".join(map(str, report.failures))
    assert report.refused + report.worked == 100


# checks that fail on the first mutant they see: the sound file comes first


def crash(path: Path) -> None:
    if path.read_bytes() != SOUND:
        os.abort()


def hang(path: Path) -> None:
    if path.read_bytes() != SOUND:
        time.sleep(60)


def leak(path: Path) -> None:
    if path.read_bytes() != SOUND:
        bytearray(1 << 30)


def wrong(path: Path) -> None:
    if path.read_bytes() != SOUND:
        raise ValueError("not the right exception")


SOUND = g.file([("general.architecture", g.scalar(g.STRING, "llama"))])
FAULTS = [
    ("crash", "Aborted"),
    ("hang", "Timeout"),
    ("leak", "MemoryError"),
    ("wrong", "not the right exception"),
]


@pytest.mark.parametrize(("fault", "why"), FAULTS)
def test_the_harness_sees_failures(tmp_path: Path, fault: str, why: str) -> None:
    """Two mutants, so that the worker is started again after it died of the first."""
    path = tmp_path / "sound.gguf"
    path.write_bytes(SOUND)
    cut = [seed for seed in range(999) if mutate.Source(path).mutant(seed).cut is not None]
    first = next(seed for seed in cut if seed + 1 in cut)
    report = mutate.run(path, range(first, first + 2), f"test_gguf_fuzz:{fault}", limit=0.5)
    assert [f.mutant.seed for f in report.failures] == [first, first + 1]
    assert all(why in f.why for f in report.failures)
    assert f"sound.gguf, seed {first} (" in str(report.failures[0])


def test_the_harness_sees_that_it_cannot_work(tmp_path: Path) -> None:
    (tmp_path / "sound.gguf").write_bytes(SOUND)
    with pytest.raises(RuntimeError, match=r"(?s)mutate:none cannot even be tried on the sound .*AttributeError"):
        mutate.run(tmp_path / "sound.gguf", range(3), "mutate:none")
