"""The GGUF reader on sound files: against the gguf package, and on files written here."""

from __future__ import annotations

import gc
import hashlib
import json
import mmap
import time
from pathlib import Path
from typing import Any

import gguf
import gguf_bytes as g
import numpy as np
import pytest

from pyllm.errors import ModelError
from pyllm.gguf import REQUIRED, GGUFError, GGUFFile, TensorInfo, TypeInfo, tensor_types

#: tensor types of plain numbers
NUMBERS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
DEQUANTIZED = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def same(found: Any, wanted: Any) -> bool:
    """Equal values and types; arrays of any nesting, NaN equal to itself."""
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(same(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(found, (np.ndarray, np.generic)):
        found = found.tolist()
    return type(found) is type(wanted) and (found == wanted or (found != found and wanted != wanted))


def check_against_package(path: Path) -> None:
    """Everything that gguf.GGUFReader finds in the file, we find."""
    theirs = gguf.GGUFReader(path)
    with GGUFFile.open(path) as ours:
        fields = {k: f for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
        assert list(ours.metadata) == list(fields)
        for key, f in fields.items():
            assert same(ours.metadata[key], f.contents()), key
            names = {"UINT": "u", "INT": "i", "FLOAT": "f"}
            kind = f.types[-1].name
            for long, short in names.items():
                kind = kind.replace(long, short)
            assert ours.type_of(key).endswith(kind.lower()), key
        assert ours.version == int(theirs.fields["GGUF.version"].contents())
        assert ours.alignment == theirs.alignment
        assert ours.file_size == path.stat().st_size
        assert list(ours.tensors) == [t.name for t in theirs.tensors]
        for t in theirs.tensors:
            mine = ours.tensors[t.name]
            assert mine.name == t.name
            assert mine.shape == tuple(t.shape.tolist())
            assert mine.type.name == t.tensor_type.name
            assert (mine.offset, mine.nbytes, mine.part) == (t.data_offset, t.n_bytes, 0)
            assert (mine.n_elements, mine.rows * mine.cols) == (t.n_elements, t.n_elements)
            assert mine.data.tobytes() == t.data.tobytes()


GOLDENS = ["models", "quant", "vlm", "vocabs"]


@pytest.mark.parametrize("folder", GOLDENS)
def test_goldens_as_the_gguf_package_reads_them(shared: Path, folder: str) -> None:
    paths = sorted((shared / "goldens" / folder).glob("*.gguf"))
    assert paths
    if folder == "vocabs":  # the package takes seconds for a large one
        paths = [p for p in paths if p.stat().st_size < 1_300_000]
    for path in paths:
        check_against_package(path)


def test_smollm2_as_the_gguf_package_reads_it(smollm2: Path) -> None:
    check_against_package(smollm2)


@pytest.mark.alone
def test_vocabularies_open_quickly(shared: Path) -> None:
    """Half a million strings, tokens and merges: measured 0.13 s; four times that is a defect."""
    path = shared / "goldens" / "vocabs" / "ggml-vocab-command-r.gguf"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with GGUFFile.open(path) as f:
            assert len(f.get_list("tokenizer.ggml.tokens", str)) == 256_000
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_types_are_those_of_the_gguf_package() -> None:
    types = tensor_types()
    for t, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if t.name != "Q8_1":  # never stored; the package gives the 40 bytes it had before its scales were halved
            assert types[t.value] == TypeInfo(t.name, t.value, block, size, types[t.value].act)
    assert {types[gguf.GGMLQuantizationType[n].value].act for n in DEQUANTIZED} == {0, 1}
    assert types is tensor_types()
    with pytest.raises(TypeError):
        types[0] = types[1]  # type: ignore[index]


# -- files written here ------------------------------------------------------------------------------------


def test_every_value_type_from_the_package_writer(tmp_path: Path) -> None:
    path = tmp_path / "all.gguf"
    w = gguf.GGUFWriter(path, "llama")
    w.add_uint8("u8", 255)
    w.add_int8("i8", -128)
    w.add_uint16("u16", 65535)
    w.add_int16("i16", -32768)
    w.add_uint32("u32", 2**32 - 1)
    w.add_int32("i32", -(2**31))
    w.add_uint64("u64", 2**64 - 1)
    w.add_int64("i64", -(2**63))
    w.add_float32("f32", 0.1)
    w.add_float64("f64", 0.1)
    w.add_bool("yes", True)
    w.add_bool("no", False)
    w.add_string("text", "naïve \U0001f600\0")
    w.add_array("strings", ["", "a", "é€\U0001f600"])
    w.add_array("ints", [1, -2, 3])
    w.add_array("floats", [0.5, -1.5])
    w.add_array("bools", [True, False, True])
    w.add_custom_alignment(64)
    w.add_tensor("a", np.arange(6, dtype=np.float32).reshape(2, 3))
    w.add_tensor("b", np.arange(8, dtype=np.float16).reshape(2, 2, 2))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    check_against_package(path)
    with GGUFFile.open(str(path)) as f:
        assert f.architecture == "llama"
        assert f.alignment == 64
        assert f.version == 3
        assert [f.get_int(k) for k in ("u8", "i8", "u16", "i16", "u32", "i32")] == [
            *(255, -128, 65535, -32768, 2**32 - 1, -(2**31))
        ]
        assert (f.get_int("u64"), f.get_int("i64")) == (2**64 - 1, -(2**63))
        assert (f.get_float("f32"), f.get_float("f64"), f.get_float("i8")) == (
            float(np.float32(0.1)),
            0.1,
            -128.0,
        )
        assert (f.get_bool("yes"), f.get_bool("no")) == (True, False)
        assert f.get_str("text") == "naïve \U0001f600\0"
        assert f.get_list("strings", str) == ["", "a", "é€\U0001f600"]
        assert f.get_list("ints", int) == [1, -2, 3]
        assert f.get_list("ints", float) == [1.0, -2.0, 3.0]
        assert f.get_list("floats", float, length=2) == [0.5, -1.5]
        assert f.get_list("bools", bool) == [True, False, True]
        assert f.get_array("bools", bool).dtype == np.bool_
        assert f.get_array("ints", int).dtype == np.int32
        assert f.type_of("ints") == "array of i32"
        a = f.tensors["a"]
        assert (a.shape, a.cols, a.rows, a.n_elements) == ((3, 2), 3, 2, 6)
        assert a.offset % 64 == 0
        np.testing.assert_array_equal(a.dequantize(), np.arange(6, dtype=np.float32).reshape(2, 3))
        assert f.tensors["b"].dequantize().tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


def test_version_2_nested_arrays_and_a_scalar_tensor(tmp_path: Path) -> None:
    inner = [g.array_body(g.I16, [1, 2]), g.array_body(g.I16, [])]
    mixed = [g.array_body(g.STRING, ["x"]), g.array_body(g.ARRAY, [g.array_body(g.BOOL, [1])])]
    path = write(
        tmp_path / "v2.gguf",
        g.file(
            [
                ("nested", g.array(g.ARRAY, inner)),
                ("mixed", g.array(g.ARRAY, mixed)),
                ("none", g.array(g.ARRAY, [])),
                ("empty", g.array(g.F64, [])),
            ],
            [g.Tensor("one", [], g.number(g.F32, 2.5)), g.Tensor("4d", [1, 2, 1, 2], bytes(16))],
            version=2,
        ),
    )
    with GGUFFile.open(path) as f:
        assert f.version == 2
        assert [v.tolist() for v in f.metadata["nested"]] == [[1, 2], []]
        assert f.type_of("nested") == "array of array of i16"
        assert f.metadata["mixed"][0] == ["x"]
        assert f.metadata["mixed"][1][0].tolist() == [True]
        assert f.type_of("mixed") == "array of arrays"
        assert f.metadata["none"] == []
        assert (f.metadata["empty"].dtype, f.get_list("empty", float)) == (np.float64, [])
        assert f.tensors["one"].shape == (1,)
        assert f.tensors["one"].dequantize().tolist() == [2.5]
        assert f.tensors["4d"].dequantize().shape == (2, 1, 2, 1)


def test_data_is_a_read_only_view_of_the_mapping(tmp_path: Path) -> None:
    path = write(tmp_path / "t.gguf", g.file([], [g.Tensor("t", [4], bytes(range(16)))]))
    with GGUFFile.open(path) as f:
        t = f.tensors["t"]
        view = t.data
        assert (view.dtype, view.shape, view.flags.writeable) == (np.uint8, (16,), False)
        assert np.shares_memory(view, np.frombuffer(f.maps[0], np.uint8))
        assert view.tolist() == list(range(16))
        scores = f.metadata
        assert scores == {}
        del view


def test_metadata_arrays_are_read_only_and_outlive_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.gguf", g.file([("a", g.array(g.U32, [1, 2, 3]))]))
    f = GGUFFile.open(path)
    f.close()
    assert f.get_list("a", int) == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        f.metadata["a"][0] = 7


def test_close_releases_the_mapping(tmp_path: Path) -> None:
    path = write(tmp_path / "t.gguf", g.file([], [g.Tensor("t", [4], bytes(16))]))
    f = GGUFFile.open(path)
    mapping = f.maps[0]
    f.close()
    f.close()
    assert f.maps == []
    assert mapping.closed
    with pytest.raises(GGUFError, match="the file is closed, tensor 't' cannot be read"):
        _ = f.tensors["t"].data


def test_close_while_views_are_alive(tmp_path: Path) -> None:
    """Views stay valid; the mapping goes with the last of them."""
    path = write(tmp_path / "t.gguf", g.file([], [g.Tensor("t", [4], bytes(range(16)))]))
    with GGUFFile.open(path) as f:
        view = f.tensors["t"].data
    with pytest.raises(GGUFError, match="is closed"):
        _ = f.tensors["t"].data
    assert view.tolist() == list(range(16))
    gc.collect()
    assert sum(isinstance(o, mmap.mmap) and not o.closed and len(o) == path.stat().st_size for o in referents(view))
    alive = open_mappings(path)
    del view
    gc.collect()
    assert alive in (None, 1)
    assert open_mappings(path) in (None, 0)


def referents(array: np.ndarray) -> list[object]:
    """What an array's memory belongs to."""
    base: object = array
    chain = []
    while base is not None:
        chain.append(base)
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return chain


def open_mappings(path: Path) -> int | None:
    """How often this process maps the file; None where the system does not say."""
    maps = Path("/proc/self/maps")
    return maps.read_text().count(str(path)) if maps.exists() else None


# -- getters -----------------------------------------------------------------------------------------------


@pytest.fixture
def typed(tmp_path: Path) -> GGUFFile:
    pairs = [
        ("int", g.scalar(g.U32, 7)),
        ("float", g.scalar(g.F32, 0.5)),
        ("inf", g.scalar(g.F32, float("inf"))),
        ("str", g.scalar(g.STRING, "text")),
        ("bool", g.scalar(g.BOOL, 1)),
        ("ints", g.array(g.I32, [1, 2])),
        ("strs", g.array(g.STRING, ["a", "b"])),
        ("nested", g.array(g.ARRAY, [g.array_body(g.I32, [1])])),
    ]
    return GGUFFile.open(write(tmp_path / "typed.gguf", g.file(pairs)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.architecture, "key general.architecture is missing"),
        (lambda f: f.get_int("float"), "float is of type f32, where int is expected"),
        (lambda f: f.get_int("bool"), "bool is of type bool, where int is expected"),
        (lambda f: f.get_int("float", 3), "float is of type f32, where int is expected"),
        (lambda f: f.get_int("ints"), "ints is of type array of i32, where int is expected"),
        (lambda f: f.get_int("int", min=8), "int is 7, where 8 or more is expected"),
        (lambda f: f.get_int("int", max=6), "int is 7, where 6 or less is expected"),
        (lambda f: f.get_int("int", min=1, max=6), "int is 7, where from 1 to 6 is expected"),
        (lambda f: f.get_float("str"), "str is of type string, where float is expected"),
        (lambda f: f.get_float("inf"), "inf is inf, where a finite number is expected"),
        (lambda f: f.get_str("int"), "int is of type u32, where str is expected"),
        (lambda f: f.get_bool("int"), "int is of type u32, where bool is expected"),
        (lambda f: f.get_list("int", int), "int is of type u32, where array of int is expected"),
        (
            lambda f: f.get_list("strs", int),
            "strs is of type array of string, where array of int is expected",
        ),
        (lambda f: f.get_list("ints", str), "ints is of type array of i32, where array of str is expected"),
        (lambda f: f.get_list("nested", int), "nested is of type array of array of i32, where array of int"),
        (lambda f: f.get_list("ints", int, length=3), "ints has 2 elements, where 3 are expected"),
        (lambda f: f.get_array("ints", int, length=1), "ints has 2 elements, where 1 are expected"),
        (lambda f: f.get_array("none", int), "key none is missing"),
    ],
)
def test_getters_name_the_key_and_what_was_found(typed: GGUFFile, call: Any, message: str) -> None:
    with pytest.raises(GGUFError) as e:
        call(typed)
    assert str(e.value).startswith(f"{typed.path}: ")
    assert message in str(e.value)


def test_getters_with_defaults(typed: GGUFFile) -> None:
    assert typed.get_int("none", None) is None
    assert typed.get_int("none", 3, min=5) == 3
    assert typed.get_float("none", 1) == 1
    assert typed.get_str("none", "x") == "x"
    assert typed.get_bool("none", False) is False
    assert typed.get_list("none", str, None) is None
    assert typed.get_array("none", int, None) is None
    assert typed.get_int("int", 3, min=7, max=7) == 7
    assert repr(REQUIRED) == "REQUIRED"
    assert repr(typed).endswith("typed.gguf', 8 keys, 0 tensors>")


# -- split files -------------------------------------------------------------------------------------------


def split_pairs(no: int, count: int, tensors: int) -> list[tuple[str, bytes]]:
    return [
        ("split.no", g.scalar(g.U16, no)),
        ("split.count", g.scalar(g.U16, count)),
        ("split.tensors.count", g.scalar(g.I32, tensors)),
    ]


def split_model(folder: Path, **changes: Any) -> list[Path]:
    """Three parts: metadata only, two tensors, one tensor; changes: part index as text -> its pairs."""
    arch = [("general.architecture", g.scalar(g.STRING, "llama"))]
    tensors = [
        [],
        [g.Tensor("a", [4], bytes(range(16))), g.Tensor("b", [2], bytes(8))],
        [g.Tensor("c", [1], bytes(range(4)))],
    ]
    paths = []
    for i in range(3):
        pairs = changes.get(f"pairs{i}", split_pairs(i, 3, 3))
        content = g.file(pairs + (arch if i == 0 else []), changes.get(f"tensors{i}", tensors[i]))
        paths.append(write(folder / f"m-{i + 1:05d}-of-00003.gguf", content))
    return paths


@pytest.mark.parametrize("opened", [0, 1, 2])
def test_any_part_opens_the_whole_model(tmp_path: Path, opened: int) -> None:
    paths = split_model(tmp_path)
    with GGUFFile.open(paths[opened]) as f:
        assert f.path == paths[opened]
        assert f.parts == paths
        assert f.architecture == "llama"
        assert f.file_size == sum(p.stat().st_size for p in paths)
        assert len(f.maps) == 3
        assert [(t.name, t.part, t.nbytes) for t in f.tensors.values()] == [
            ("a", 1, 16),
            ("b", 1, 8),
            ("c", 2, 4),
        ]
        assert f.tensors["c"].data.tolist() == [0, 1, 2, 3]
        assert f.tensors["a"].data.tolist() == list(range(16))


def test_parts_found_by_the_package_writer(tmp_path: Path) -> None:
    w = gguf.GGUFWriter(tmp_path / "w.gguf", "llama", split_max_tensors=1)
    arrays = {f"t{i}": np.full((2, 4), i, np.float32) for i in range(3)}
    for name, a in arrays.items():
        w.add_tensor(name, a)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    first = tmp_path / "w-00001-of-00003.gguf"
    with GGUFFile.open(first) as f:
        assert len(f.parts) == 3
        for name, a in arrays.items():
            np.testing.assert_array_equal(f.tensors[name].dequantize(), a)


@pytest.mark.parametrize("count", [0, 1])
def test_a_merged_file_is_whole(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "merged.gguf", g.file(split_pairs(0, count, 0)))
    with GGUFFile.open(path) as f:
        assert f.parts == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pairs0": split_pairs(0, 4, 3)},
            "is part 1 of 4 of a split model and must be called NAME-00001-of-00004",
        ),
        (
            {"pairs0": split_pairs(1, 3, 3)},
            "is part 2 of 3 of a split model and must be called NAME-00002-of-00003",
        ),
        ({"pairs0": split_pairs(0, 3, 4)}, "split.tensors.count is 4, but the parts hold 3 tensors"),
        (
            {"pairs0": split_pairs(0, 3, 3)[:2]},
            "split.tensors.count is missing, where an integer is expected",
        ),
        ({"pairs0": split_pairs(0, 3, 3)[1:]}, "split.no is missing, where an integer is expected"),
        (
            {"pairs0": [("split.count", g.scalar(g.STRING, "3"))]},
            "split.count is of type string, where an integer is expected",
        ),
        ({"pairs1": split_pairs(2, 3, 3)}, "says that it is part 3 of 3, not 2 of 3"),
        ({"pairs2": split_pairs(2, 4, 3)}, "says that it is part 3 of 4, not 3 of 3"),
        ({"pairs2": []}, "split.no is missing"),
        ({"tensors2": [g.Tensor("a", [1], bytes(4))]}, "tensor 'a' is already in "),
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    paths = split_model(tmp_path, **changes)
    with pytest.raises(GGUFError) as e:
        GGUFFile.open(paths[0])
    assert message in str(e.value)
    gc.collect()
    assert open_mappings(tmp_path) in (None, 0)


def test_a_part_under_another_name_or_missing(tmp_path: Path) -> None:
    paths = split_model(tmp_path)
    other = paths[0].rename(tmp_path / "model.gguf")
    with pytest.raises(GGUFError, match=r"must be called NAME-00001-of-00003\.gguf"):
        GGUFFile.open(other)
    with pytest.raises(GGUFError, match=r"m-00001-of-00003\.gguf: there is no such file"):
        GGUFFile.open(paths[1])


# -- dequantization ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DEQUANTIZED, "Q4_K_M"])
def test_dequantize_bit_for_bit(shared: Path, name: str) -> None:
    """Every tensor as the gguf package computes it in float32, now and when the digests were stored."""
    path = shared / "goldens" / "quant" / f"quant-{name}.gguf"
    meta = json.loads(bytes(np.load(path.with_suffix(".npz"))["meta_json"]))
    digests = meta.get("sha256_f32_dequant", {})
    theirs = {t.name: t for t in gguf.GGUFReader(path).tensors}
    compared = 0
    with GGUFFile.open(path) as f:
        for t in f.tensors.values():
            ours = t.dequantize()
            wanted = gguf.quants.dequantize(theirs[t.name].data, theirs[t.name].tensor_type)
            assert ours.shape == wanted.shape
            assert ours.tobytes() == wanted.tobytes()
            if t.name in digests:
                assert hashlib.sha256(ours.tobytes()).hexdigest() == digests[t.name]
                compared += 1
    assert compared or name == "F32"  # which has nothing to dequantize and no digests


@pytest.mark.parametrize("name", DEQUANTIZED)
def test_dequantize_any_bytes(tmp_path: Path, name: str) -> None:
    """Random bytes, so every scale and quant: NaN where the package has NaN, else the same bits."""
    type_ = next(t for t in tensor_types().values() if t.name == name)
    raw = np.random.default_rng(1).integers(0, 256, 64 * type_.bytes * (256 // type_.block), np.uint8)
    path = write(tmp_path / "r.gguf", g.file([], [g.Tensor("r", [256, 64], raw.tobytes(), type_.id)]))
    with np.errstate(all="ignore"):
        wanted = gguf.quants.dequantize(raw.reshape(64, -1), gguf.GGMLQuantizationType(type_.id))
    with GGUFFile.open(path) as f:
        ours = f.tensors["r"].dequantize()
    nan = np.isnan(wanted)
    assert (np.isnan(ours) == nan).all()
    assert (ours.view(np.uint32)[~nan] == np.ascontiguousarray(wanted).view(np.uint32)[~nan]).all()


def test_dequantize_of_a_type_without_kernel(tmp_path: Path) -> None:
    path = write(tmp_path / "t.gguf", g.file([], [g.Tensor("t", [32], bytes(36), 9)]))
    with GGUFFile.open(path) as f:
        with pytest.raises(ModelError, match="'t' is of type Q8_1, which is none of files"):
            f.tensors["t"].dequantize()
        with pytest.raises(ModelError, match="'t' is of type Q8_1, which numpy has no numbers for"):
            _ = f.tensors["t"].array


@pytest.mark.parametrize("name", NUMBERS)
def test_plain_numbers(tmp_path: Path, name: str) -> None:
    """Tensors of plain numbers are arrays as the gguf package writes them, and float32 where those are asked for."""
    dtype = NUMBERS[name]
    bits = np.random.default_rng(3).integers(0, 256, (3, 5, 7, np.dtype(dtype).itemsize), np.uint8)
    numbers = bits.view(dtype)[..., 0]
    w = gguf.GGUFWriter(tmp_path / "n.gguf", "llama")
    w.add_tensor("before", np.zeros(3, np.int8))
    w.add_tensor("n", numbers)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    with GGUFFile.open(tmp_path / "n.gguf") as f:
        t = f.tensors["n"]
        assert t.type.name == name
        assert t.array.dtype == numbers.dtype and t.array.tobytes() == numbers.tobytes()
        assert t.array.shape == (3, 5, 7) and not t.array.flags.writeable
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(t.dequantize(), numbers.astype(np.float32))
        assert t.has_kernel == (dtype[1] == "f")


def test_dataclasses_are_frozen(tmp_path: Path) -> None:
    path = write(tmp_path / "t.gguf", g.file([], [g.Tensor("t", [1], bytes(4))]))
    with GGUFFile.open(path) as f:
        t = f.tensors["t"]
        assert isinstance(t, TensorInfo) and isinstance(t.type, TypeInfo)
        with pytest.raises(AttributeError):
            t.offset = 0  # type: ignore[misc]
        with pytest.raises(AttributeError):
            t.type.block = 0  # type: ignore[misc]
