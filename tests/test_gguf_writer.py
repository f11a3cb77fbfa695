"""Files that the writer made are what the `gguf` package and our reader take them for; a failure leaves nothing."""

from __future__ import annotations

import resource
from pathlib import Path

import gguf
import numpy as np
import pytest

from pyllm.gguf import GGUFError, GGUFFile, tensor_types
from pyllm.gguf.writer import GGUFWriter

F32, Q8_0 = tensor_types()[0], tensor_types()[8]


def copy(source: Path, target: Path, alignment: int = 32, piece: int = 1000) -> None:
    with GGUFFile.open(source) as f, GGUFWriter(target, alignment) as w:
        w.copy_metadata(f)
        for t in f.tensors.values():
            w.add_tensor(t.name, t.shape, t.type)
        for t in f.tensors.values():
            for at in range(0, t.nbytes, piece):
                w.write(t.data[at : at + piece])


@pytest.mark.parametrize("alignment", [8, 32, 4096])
@pytest.mark.parametrize("name", ["llama_hd", "gemma3n", "gptoss", "mamba2"])
def test_copy_of_a_model_holds_the_same(shared: Path, tmp_path: Path, name: str, alignment: int) -> None:
    source, target = shared / f"goldens/models/{name}.gguf", tmp_path / "copy.gguf"
    copy(source, target, alignment)
    with GGUFFile.open(source) as a, GGUFFile.open(target) as b:
        assert b.alignment == alignment
        assert set(b.metadata) - {"general.alignment"} == set(a.metadata) - {"general.alignment"}
        for key, value in a.metadata.items():
            if key != "general.alignment":
                assert a.type_of(key) == b.type_of(key)
                np.testing.assert_array_equal(value, b.metadata[key])
        assert list(a.tensors) == list(b.tensors)
    theirs, ours = gguf.GGUFReader(source), gguf.GGUFReader(target)
    assert [t.name for t in theirs.tensors] == [t.name for t in ours.tensors]
    for x, y in zip(theirs.tensors, ours.tensors, strict=True):
        assert (x.tensor_type, list(x.shape)) == (y.tensor_type, list(y.shape))
        np.testing.assert_array_equal(x.data, y.data)
    for key in set(theirs.fields) - {"GGUF.kv_count", "general.alignment"}:
        assert theirs.fields[key].contents() == ours.fields[key].contents(), key
    assert list(tmp_path.iterdir()) == [target]


def test_values_get_the_types_that_files_have(tmp_path: Path) -> None:
    values = {
        "a": ("u32", 7),
        "b": ("i32", -7),
        "c": ("i64", 1 << 40),
        "d": ("f32", 0.5),
        "e": ("bool", True),
        "f": ("string", "naïve \N{SNOWMAN}"),
        "g": ("array of i32", [1, 2, -3]),
        "h": ("array of string", ["x", ""]),
        "i": ("array of f32", np.array([1.5, 2], np.float32)),
        "j": ("array of bool", [True, False]),
    }
    with GGUFWriter(tmp_path / "x.gguf") as w:
        for key, (_, value) in values.items():
            w.add(key, value)
        w.add("k", 3, "u8")
        w.add("l", [], "array of string")
    with GGUFFile.open(tmp_path / "x.gguf") as f:
        assert {key: f.type_of(key) for key in values} == {key: kind for key, (kind, _) in values.items()}
        for key, (_, value) in values.items():
            np.testing.assert_array_equal(f.metadata[key], value)
        assert (f.type_of("k"), f.metadata["k"], f.type_of("l"), f.metadata["l"]) == ("u8", 3, "array of string", [])


@pytest.mark.parametrize(
    ("key", "value", "type_"),
    [("a", -1, "u32"), ("a", "x", "f32"), ("a", 1, "u7"), ("a", None, None), ("a", [], None), ("a", [1, "x"], None)],
)
def test_values_that_gguf_has_no_room_for_are_refused(tmp_path: Path, key: str, value: object, type_: str) -> None:
    with pytest.raises(GGUFError, match=r"cannot be|no GGUF type"), GGUFWriter(tmp_path / "x.gguf") as w:
        w.add(key, value, type_)
    assert not list(tmp_path.iterdir())


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"precious")
    with pytest.raises(KeyboardInterrupt), GGUFWriter(path) as w:
        w.add_tensor("a", (4,), F32)
        w.write(np.zeros(2, np.float32))
        raise KeyboardInterrupt
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"precious"]


@pytest.mark.parametrize("n", [0, 3, 5])
def test_bytes_that_do_not_fill_the_tensors_are_refused(tmp_path: Path, n: int) -> None:
    with pytest.raises(ValueError, match=r"missing|lacks"), GGUFWriter(tmp_path / "x.gguf") as w:
        w.add_tensor("a", (4,), F32)
        w.write(np.zeros(n, np.float32))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="more data"), GGUFWriter(tmp_path / "x.gguf") as w:
        w.write(np.zeros(1, np.float32))


def test_tensors_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="twice"), GGUFWriter(tmp_path / "x.gguf") as w:
        w.add_tensor("a", (4,), F32)
        w.add_tensor("a", (4,), F32)
    with pytest.raises(GGUFError, match="multiple of Q8_0's 32"), GGUFWriter(tmp_path / "x.gguf") as w:
        w.add_tensor("a", (33,), Q8_0)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space is asked for first; where that is not enough, what was written goes."""
    with pytest.raises(GGUFError, match="free there"), GGUFWriter(tmp_path / "x.gguf") as w:
        w.add_tensor("a", (1 << 50,), F32)
        w.write(b"")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(GGUFError, match="cannot be written"), GGUFWriter(tmp_path / "x.gguf") as w:
            w.add_tensor("a", (1 << 15,), F32)
            w.write(np.zeros(1 << 15, np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="No such file"), GGUFWriter(tmp_path / "no" / "x.gguf"):
        pass
