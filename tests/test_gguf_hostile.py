"""The GGUF reader on wrong, damaged and malicious files: GGUFError saying what is wrong, and nothing else."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import gguf_bytes as g
import pytest

from pyllm.errors import PyllmError
from pyllm.gguf import GGUFError, GGUFFile, header

LLAMA = ("general.architecture", g.scalar(g.STRING, "llama"))
ONE = g.number(g.U64, 1)


def open_bytes(path: Path, content: bytes) -> GGUFFile:
    path.write_bytes(content)
    return GGUFFile.open(path)


def pair(body: bytes, key: str | bytes = "k") -> bytes:
    """A file of one pair."""
    return g.file([(key, body)])


def tensor(*args: Any, **kwargs: Any) -> bytes:
    """A file of one tensor."""
    return g.file([LLAMA], [g.Tensor(*args, **kwargs)])


def aligned(alignment: int) -> bytes:
    return g.file([("general.alignment", g.scalar(g.U32, alignment))])


def deep(levels: int) -> bytes:
    """An array in an array in ..."""
    body = g.array_body(g.U8, [1])
    for _ in range(levels - 1):
        body = g.array_body(g.ARRAY, [body])
    return g.number(g.U32, g.ARRAY) + body


CASES: list[tuple[str, bytes, str]] = [
    # what it is
    ("empty", b"", "is empty"),
    ("short-magic", b"GG", "is not a GGUF file: it starts with b'GG', not with b'GGUF'"),
    ("magic", b"\x7fELF" + bytes(60), r"is not a GGUF file: it starts with b'\x7fELF', not with b'GGUF'"),
    ("ggml", b"lmgg" + bytes(60), "is a GGML file from before GGUF: convert the model to GGUF"),
    ("ggjt", b"tjgg" + bytes(60), "is a GGML file from before GGUF"),
    ("ggmf", b"fmgg" + bytes(60), "is a GGML file from before GGUF"),
    (
        "lfs",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "is a Git LFS pointer, not the model",
    ),
    ("html", b"<!DOCTYPE html><html></html>", "is a web page and not a GGUF file: the download went wrong"),
    ("html-2", b"<html><body>404</body></html>", "is a web page and not a GGUF file"),
    ("zip", b"PK\3\4" + bytes(60), "is a ZIP archive, not a GGUF file: unpack it first"),
    ("reversed", b"FUGG" + bytes(60), "is a GGUF file of the other byte order: convert it to little endian"),
    ("big-endian", g.file([], order=">"), "is a big-endian GGUF file: convert it to little endian"),
    ("big-endian-2", g.file([], order=">", version=2), "is a big-endian GGUF file"),
    ("version-0", g.file([], version=0), "is a GGUF file of version 0; pyllm reads versions 2 and 3"),
    (
        "version-1",
        g.file([], version=1),
        "is a GGUF file of version 1, which is no longer in use: convert it again",
    ),
    ("version-4", g.file([], version=4), "is a GGUF file of version 4; pyllm reads versions 2 and 3"),
    # cut short
    ("no-version", b"GGUF\3\0", "the version at byte 4 takes 4 bytes, but the file ends at byte 6"),
    (
        "no-counts",
        b"GGUF\3\0\0\0\0",
        "the number of tensors at byte 8 takes 8 bytes, but the file ends at byte 9",
    ),
    (
        "no-count",
        g.file([])[:20],
        "the number of metadata keys at byte 16 takes 8 bytes, but the file ends at byte 20",
    ),
    (
        "no-value",
        pair(g.number(g.U32, g.U64)),
        "key 'k' at byte 37 takes 8 bytes, but the file ends at byte 37",
    ),
    (
        "no-type",
        pair(bytes(3), "four"),
        "the type of key 'four' at byte 36 takes 4 bytes, but the file ends at byte 39",
    ),
    # counts
    (
        "pairs",
        g.file([LLAMA], n_pairs=2**64 - 1),
        "claims 18446744073709551615 metadata keys, but the file ends 45 ",
    ),
    (
        "pairs-limit",
        g.file([], n_pairs=16_385) + bytes(13 * 16_385),
        "claims 16385 metadata keys, more than pyllm's",
    ),
    (
        "tensors",
        g.file([], n_tensors=2**63),
        "claims 9223372036854775808 tensors, but the file ends 0 bytes further on",
    ),
    (
        "tensors-limit",
        g.file([], n_tensors=32_769) + bytes(24 * 32_769),
        "claims 32769 tensors, more than pyllm's limit",
    ),
    # keys
    (
        "key-length",
        g.file([], n_pairs=1) + g.text("ab", 2**40) + bytes(9),
        "metadata key 0 at byte 32 takes 1099511627776",
    ),
    (
        "key-utf8",
        pair(g.scalar(g.U8, 1), b"a\xff"),
        "metadata key 0 is not UTF-8: invalid start byte at byte 33",
    ),
    (
        "key-twice",
        g.file([LLAMA, LLAMA]),
        "metadata key 'general.architecture' at byte 69 is there a second time",
    ),
    # values
    ("value-type", pair(g.number(g.U32, 13) + ONE), "key 'k' at byte 37 has the unknown value type 13"),
    ("bool", pair(g.scalar(g.BOOL, 2)), "key 'k' at byte 37 is a bool with value 2, neither 0 nor 1"),
    (
        "string-length",
        pair(g.number(g.U32, g.STRING) + g.text("abc", 4)),
        "key 'k' at byte 45 takes 4 bytes, but the",
    ),
    (
        "string-huge",
        pair(g.number(g.U32, g.STRING) + g.text("abc", 2**64 - 1)),
        "takes 18446744073709551615 bytes",
    ),
    (
        "string-utf8",
        pair(g.scalar(g.STRING, b"ab\xc3(")),
        "key 'k' is not UTF-8: invalid continuation byte at byte 47",
    ),
    ("string-surrogate", pair(g.scalar(g.STRING, b"\xed\xa0\x80")), "key 'k' is not UTF-8"),
    (
        "string-wide",
        pair(g.scalar(g.STRING, b"a" * 2**21 + "\U0001f600".encode())),
        "too many for a text in a file of",
    ),
    # arrays
    (
        "array-type",
        pair(g.array(13, [], 1) + ONE),
        "key 'k' at byte 37 is an array of the unknown value type 13",
    ),
    (
        "array-count",
        pair(g.array(g.U32, [1, 2], 3)),
        "key 'k' with 3 elements at byte 49 takes 12 bytes, but the file",
    ),
    ("array-wraps", pair(g.array(g.U64, [1, 2], 2**61 + 2)), "takes 18446744073709551632 bytes"),
    (
        "array-bool",
        pair(g.array(g.BOOL, [1, 0, 3])),
        "key 'k' at byte 51 has a bool with value 3, neither 0 nor 1",
    ),
    (
        "strings-count",
        pair(g.array(g.STRING, ["a"], 2)),
        "claims 2 strings in key 'k', but the file ends 9 bytes further",
    ),
    (
        "strings-past-end",
        pair(g.array(g.STRING, ["a", "bc"], 2))[:-1],
        "key 'k' with 2 strings runs past the end of",
    ),
    (
        "strings-cut-in-length",
        pair(g.array(g.STRING, ["abcdefgh", "b"]))[:-5],
        "key 'k' with 2 strings runs past the end of the file at byte 69",
    ),
    (
        "strings-overrun",
        pair(g.array(g.STRING, [], 2) + g.text("abc", 90) + g.text("")),
        "key 'k' with 2 strings runs past the end of the file at byte 68",
    ),
    (
        "strings-overrun-in-character",
        pair(g.array(g.STRING, [], 2) + g.text("", 90) + "\U0001f600  \U0001f600".encode()[:-2]),
        "key 'k' with 2 strings runs past the end of the file at byte 65",
    ),
    (
        "strings-huge",
        pair(g.array(g.STRING, [], 2) + g.text("abc", 2**64 - 1) + g.text("")),
        "string 0 of key 'k' at byte 57 takes 18446744073709551615 bytes, but the file ends at byte 68",
    ),
    (
        "strings-limit",
        pair(g.array(g.STRING, [], 4_194_305) + bytes(8 * 4_194_305)),
        "claims 4194305 strings in key 'k', more than pyllm's limit of 4194304",
    ),
    (
        "strings-utf8",
        pair(g.array(g.STRING, ["a", b"\x80"])),
        "string 1 of key 'k' is not UTF-8: invalid start byte at",
    ),
    (
        "arrays-count",
        pair(g.array(g.ARRAY, [], 2) + bytes(23)),
        "claims 2 arrays in key 'k', but the file ends 23 bytes",
    ),
    (
        "arrays-limit",
        pair(g.array(g.ARRAY, [g.array_body(g.U8, [])] * 4097)),
        "claims 4097 arrays in key 'k', more than",
    ),
    ("arrays-deep", pair(deep(5)), "has arrays in arrays more than 4 levels deep"),
    # alignment
    ("alignment-0", aligned(0), "general.alignment is 0, no power of two from 8 up"),
    ("alignment-4", aligned(4), "general.alignment is 4, no power of two from 8 up"),
    ("alignment-48", aligned(48), "general.alignment is 48, no power of two from 8 up"),
    (
        "alignment-type",
        g.file([("general.alignment", g.scalar(g.U64, 32))]),
        "general.alignment is of type u64, not u32",
    ),
    # tensors
    (
        "name-length",
        g.file([], n_tensors=1) + g.text("t", 17) + bytes(15),
        "the name of tensor 0 at byte 32 takes 17 bytes",
    ),
    ("name-utf8", tensor(b"\xfe", [1], bytes(4)), "the name of tensor 0 is not UTF-8"),
    (
        "name-twice",
        g.file([], [g.Tensor("t", [1], bytes(4))] * 2),
        "tensor 't' at byte 57 is there a second time",
    ),
    ("dims", tensor("t", [1] * 5, bytes(4)), "tensor 't' has 5 dimensions, more than 4"),
    (
        "dims-huge",
        tensor("t", [1], bytes(4), n_dims=2**32 - 1),
        "tensor 't' has 4294967295 dimensions, more than 4",
    ),
    ("dim-0", tensor("t", [4, 0], bytes(4)), "tensor 't' has an empty shape (4, 0)"),
    (
        "product",
        tensor("t", [2**32, 2**31], bytes(4)),
        "tensor 't' has more than 2^63 elements: its shape is (429496",
    ),
    ("product-wraps", tensor("t", [2**32, 2**32, 4], bytes(4)), "tensor 't' has more than 2^63 elements"),
    ("type", tensor("t", [32], bytes(32), 4), "tensor 't' has the unknown type id 4"),
    ("type-huge", tensor("t", [32], bytes(32), 2**32 - 1), "tensor 't' has the unknown type id 4294967295"),
    (
        "block",
        tensor("t", [48], bytes(64), 2),
        "tensor 't' has rows of 48 elements, no multiple of Q4_0's 32",
    ),
    (
        "offset",
        tensor("t", [4], bytes(64), offset=8),
        "tensor 't' has offset 8, no multiple of the alignment 32",
    ),
    (
        "offset-huge",
        tensor("t", [4], bytes(64), offset=2**64 - 32),
        "tensor 't' takes bytes 18446744073709551712 to ",
    ),
    (
        "extent",
        tensor("t", [17], bytes(64)),
        "takes bytes 128 to 196, but the file ends at byte 192: it is cut short",
    ),
    (
        "extent-huge",
        tensor("t", [2**62], bytes(64)),
        "but the file ends at byte 192: it is cut short or damaged",
    ),
    (
        "overlap",
        g.file([], [g.Tensor("t", [9], bytes(36)), g.Tensor("u", [1], bytes(4), offset=32)]),
        "tensors 't' and 'u' overlap at byte 128",
    ),
    (
        "same-place",
        g.file([], [g.Tensor("t", [8], bytes(32)), g.Tensor("u", [8], b"", offset=0)]),
        "tensors 't' and 'u' overlap at byte 96",
    ),
]


@pytest.mark.parametrize(("content", "message"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_message(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.gguf"
    with pytest.raises(GGUFError) as e:
        open_bytes(path, content)
    assert str(e.value).startswith(f"{path}: ")
    assert message in str(e.value)
    assert len(str(e.value)) < 400
    assert isinstance(e.value, PyllmError)


# -- paths ---------------------------------------------------------------------------------------------------


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="none: there is no such file"):
        GGUFFile.open(tmp_path / "none")
    with pytest.raises(GGUFError, match="is a directory, not a GGUF file"):
        GGUFFile.open(tmp_path)
    with pytest.raises(GGUFError, match=r"cannot be opened: .*embedded null"):
        GGUFFile.open("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with FIFOs")
def test_fifo_and_device_neither_block_nor_crash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(GGUFError, match="is not a regular file and cannot be mapped"):
            GGUFFile.open(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(GGUFError, match=r"x\.gguf: cannot be opened: .*Permission denied"):
        GGUFFile.open(tmp_path / "x.gguf")


def test_mapping_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    (tmp_path / "x.gguf").write_bytes(g.file([LLAMA]))
    monkeypatch.setattr(header.mmap, "mmap", refuse)
    with pytest.raises(GGUFError, match=r"cannot be mapped into memory: .*Cannot allocate memory"):
        GGUFFile.open(tmp_path / "x.gguf")


def test_names_are_escaped_and_shortened_in_messages(tmp_path: Path) -> None:
    with pytest.raises(GGUFError) as e:
        open_bytes(tmp_path / "x", tensor("\x1b[31m\n" + "x" * 10_000, [0], bytes(4)))
    assert str(e.value).endswith("tensor '\\x1b[31m\\n" + "x" * 55 + "...' has an empty shape (0,)")


# -- memory and time -----------------------------------------------------------------------------------------


def peak(path: Path) -> tuple[int, bool]:
    """Bytes that Python and numpy allocated at most while the file was opened, and whether it opened."""
    gc.collect()
    tracemalloc.start()
    try:
        try:
            GGUFFile.open(path).close()
            opened = True
        except GGUFError:
            opened = False
        return tracemalloc.get_traced_memory()[1], opened
    finally:
        tracemalloc.stop()


MB = 1 << 20
ALIGNED = ("general.alignment", g.scalar(g.U32, 2**31))
# what it is -> the file, and whether it is a sound one
GREEDY: dict[str, tuple[bytes, bool]] = {
    "bytes": (pair(g.array(g.U8, [], MB) + bytes(MB)), True),
    "doubles": (pair(g.array(g.F64, [], MB // 8) + bytes(MB)), True),
    "bools": (pair(g.array(g.BOOL, [], MB) + bytes(MB)), True),
    "empty-strings": (pair(g.array(g.STRING, [], MB // 8) + bytes(MB)), True),
    "long-string": (pair(g.scalar(g.STRING, "a" * 2 * MB)), True),
    "long-string-of-latin-letters": (pair(g.scalar(g.STRING, "\xe4" * MB)), True),
    "long-string-in-an-array": (pair(g.array(g.STRING, ["a" * 2 * MB, ""])), True),
    "long-string-with-an-emoji": (pair(g.scalar(g.STRING, "a" * 2 * MB + "\U0001f600")), False),
    "the-same-in-an-array": (pair(g.array(g.STRING, ["a" * 2 * MB + "\U0001f600"])), False),
    "arrays-of-nothing": (pair(g.array(g.ARRAY, [], MB // 12) + bytes(MB)), False),
    "pairs": (g.file([], n_pairs=MB // 13) + bytes(MB), False),
    "tensors": (g.file([], n_tensors=MB // 24) + bytes(MB), False),
    "tensor": (tensor("t", [2**40], bytes(MB)), False),
    "alignment": (g.file([ALIGNED], [g.Tensor("t", [1], bytes(MB))]), False),
}
for n in (MB + 1, 2**32, 2**61, 2**64 - 1):
    GREEDY[f"string-{n}"] = pair(g.number(g.U32, g.STRING) + g.text(bytes(MB), n)), False
    GREEDY[f"key-{n}"] = g.file([], n_pairs=1) + g.text(bytes(MB), n), False
    for t in (g.U8, g.U64, g.BOOL, g.STRING, g.ARRAY):
        GREEDY[f"array-of-type-{t}-{n}"] = pair(g.array(t, [], n) + bytes(MB)), False


@pytest.mark.parametrize(("content", "opens"), GREEDY.values(), ids=GREEDY)
def test_memory_stays_under_twice_the_file(tmp_path: Path, content: bytes, opens: bool) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    used, opened = peak(path)
    assert opened == opens
    assert used <= 2 * len(content) + 32_768  # the file itself is mapped; this much any small one takes


@pytest.mark.alone
def test_memory_and_time_at_every_limit(tmp_path: Path) -> None:
    """The most objects that a file may declare: 16 MB besides twice the file, and not seconds."""
    arrays = g.array(g.ARRAY, [g.array_body(g.U8, [1])] * header.MAX_ARRAYS)
    keys = [(f"{i:x}", g.scalar(g.U64, 2**63)) for i in range(header.MAX_KEYS - 1)]
    tensors = [g.Tensor(f"{i:x}", [1, 1, 1, 1], bytes(4)) for i in range(header.MAX_TENSORS)]
    content = g.file([*keys, ("arrays", arrays)], tensors)
    start = time.perf_counter()
    open_bytes(tmp_path / "x.gguf", content).close()
    assert time.perf_counter() - start < 5
    used, opened = peak(tmp_path / "x.gguf")
    assert opened
    assert used <= 2 * len(content) + 16 * MB


@pytest.mark.alone
def test_most_strings_do_not_take_long(tmp_path: Path) -> None:
    content = pair(g.array(g.STRING, [], header.MAX_STRINGS) + bytes(8 * header.MAX_STRINGS))
    start = time.perf_counter()
    with open_bytes(tmp_path / "x.gguf", content) as f:
        assert time.perf_counter() - start < 5
        assert len(f.metadata["k"]) == header.MAX_STRINGS


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs a system that lists its mappings")
def test_nothing_stays_mapped_or_open_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    before = len(os.listdir("/proc/self/fd"))
    for _, content, _ in CASES:
        with pytest.raises(GGUFError):
            open_bytes(path, content)
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert len(os.listdir("/proc/self/fd")) == before
