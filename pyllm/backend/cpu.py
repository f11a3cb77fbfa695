"""The CPU backend: the program encoded for csrc/prog, packed weights, and a pool of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._lib import ffi, lib
from ..compile import Op, Program, View, const_bytes
from ..errors import PyllmError
from ..gguf import GGUFFile
from ..gguf.file import drop_pages
from ..sampler import Sampler
from . import Step

#: buffers that lie in huge pages: those that are read from end to end. A cache that is little used would take them all,
#: and so would a step's values, most of which few tokens touch only in part
_HUGE = ("packed",)
_OP_IDS: dict[str, int] = {}


def op_ids() -> dict[str, int]:
    """Op names to ids, read out of the library."""
    if not _OP_IDS:
        i = 0
        while (info := lib.pl_op_at(i)) != ffi.NULL:
            _OP_IDS[ffi.string(info.name).decode()] = info.id
            i += 1
    return _OP_IDS


def _buffer_names(program: Program, n_parts: int) -> list[str]:
    return ["arena", "kv", "const", "packed"] + [f"file{i}" for i in range(n_parts)]


def encode(ops: list[Op], buffers: list[str]) -> Any:
    """The ops as a C array pl_op[len(ops)]."""
    index = {name: i for i, name in enumerate(buffers)}
    array = ffi.new("pl_op[]", len(ops))
    ids = op_ids()

    def put(dst: Any, view: View | None) -> None:
        if view is None:
            dst.buf = -1
            return
        dst.buf, dst.type, dst.layout = index[view.buf], view.type, int(view.packed)
        dst.rows, dst.cols, dst.off, dst.stride = view.rows, view.cols, view.off, view.stride

    for op, c in zip(ops, array, strict=True):
        c.kind, c.barrier, c.local = ids[op.kind], op.barrier, op.local
        c.i[0:8], c.f[0:8] = op.i, op.f
        for k in range(2):
            put(c.dst[k], op.dst[k])
        for k in range(5):
            put(c.src[k], op.src[k] if k < len(op.src) else None)
    return array


def working_bytes(program: Program, n_parts: int, n_batch: int, n_threads: int) -> int:
    """Working memory of all threads, bytes."""
    ops = encode(program.ops, _buffer_names(program, n_parts))
    each = int(lib.pl_program_scratch(ops, len(program.ops), n_batch))
    shared = int(lib.pl_program_shared(ops, len(program.ops))) if n_threads > 1 else 0
    return each * n_threads + shared


class CpuBackend:
    """See Backend. n_threads counts the calling thread, which takes part. huge_pages: ask the system for them."""

    name = "cpu"

    def __init__(self, n_threads: int, huge_pages: bool = True) -> None:
        self.n_threads = n_threads
        self.huge_pages = huge_pages
        self._memory: list[tuple[Any, int]] = []
        self._program = self._step = ffi.NULL
        self._n_ops = 0
        self._pool = lib.pl_pool_new(n_threads)
        if self._pool == ffi.NULL:
            raise PyllmError(f"cannot start {n_threads} threads; ask for fewer with n_threads (-t)")

    def _alloc(self, nbytes: int, what: str) -> Any:
        nbytes = max(nbytes, 64)
        pointer = lib.pl_mem_alloc(nbytes, self.huge_pages and what in _HUGE)
        if pointer == ffi.NULL:
            raise MemoryError(f"cannot allocate {nbytes} bytes for {what}")
        self._memory.append((pointer, nbytes))
        return pointer

    def load(
        self, program: Program, gguf: GGUFFile, step: Step, progress: Callable[[float], None] | None = None
    ) -> None:
        names = _buffer_names(program, len(gguf.maps))
        sizes = dict(program.sizes)
        bases: dict[str, Any] = {n: self._alloc(sizes[n], n) for n in ("arena", "kv", "const", "packed")}
        consts = const_bytes(program)
        ffi.memmove(bases["const"], consts, program.sizes["const"])
        self._maps = [ffi.from_buffer("uint8_t[]", m) for m in gguf.maps]
        for i, (view, m) in enumerate(zip(self._maps, gguf.maps, strict=True)):
            bases[f"file{i}"], sizes[f"file{i}"] = ffi.cast("void *", view), len(m)

        total = sum(n for _, _, n in program.packed) or 1
        done = 0
        for weight, off, nbytes in sorted(program.packed, key=lambda p: (p[0].tensor.part, p[0].tensor.offset)):
            info = weight.tensor
            src = self._maps[info.part] + info.offset
            dst = ffi.cast("uint8_t *", bases["packed"]) + off
            if lib.pl_pool_pack(self._pool, info.type.id, src, weight.rows, weight.cols, dst, True) < 0:
                raise PyllmError(f"cannot pack tensor {weight.name!r} of type {info.type.name}")
            drop_pages(gguf.maps[info.part], info.offset, info.nbytes)
            done += nbytes
            if progress:
                progress(done / total)
        for m in gguf.maps:
            drop_pages(m, 0, len(m))  # the header too

        ops = encode(program.ops, names)
        bad = ffi.new("int32_t *")
        self._program = lib.pl_program_new(
            ops, len(program.ops), [bases[n] for n in names], [sizes[n] for n in names], len(names),
            len(step.token), len(step.kv_len), len(step.out), bad,
        )  # fmt: skip
        if self._program == ffi.NULL:
            where = f"op {bad[0]} ({program.ops[bad[0]].name})" if bad[0] >= 0 else "its size"
            raise PyllmError(f"the compiled program is not sound at {where}; please report this model")
        self._n_ops = len(program.ops)
        self._bases, self._logits = bases, program.logits
        self._samplers: Sequence[Sampler | None] = []
        self._states, self._tokens = ffi.new("pl_sampler *[]", len(step.out)), ffi.new("int32_t[]", len(step.out))
        self._logits_at = ffi.cast("float *", ffi.cast("uint8_t *", bases["arena"]) + program.logits.off)
        self._bind(step)

    def _bind(self, step: Step) -> None:
        """Point a pl_step at the step's arrays, once."""
        self._data, self._step = step, ffi.new("pl_step *")
        self._keep = []
        for field in ("token", "pos", "slot", "q_start", "kv_len", "page", "out", "long_rope"):
            pointer = ffi.from_buffer("int32_t[]", getattr(step, field))
            self._keep.append(pointer)
            setattr(self._step, field, pointer)
        self._step.max_pages = step.page.shape[1]

    def run(self, first: int = 0, last: int | None = None) -> None:
        step, data = self._step, self._data
        step.n_tokens, step.n_seqs, step.n_out = data.n_tokens, data.n_seqs, data.n_out
        error = lib.pl_run(self._program, self._pool, step, first, self._n_ops if last is None else last)
        if error:
            raise (
                MemoryError("cannot allocate the threads' working memory")
                if error == -2
                else PyllmError("the step is not sound")
            )

    def sample(self, samplers: Sequence[Sampler | None]) -> list[int]:
        n = len(samplers)
        if samplers != self._samplers:
            self._samplers = list(samplers)
            self._states[0:n] = [ffi.NULL if s is None else s.state for s in samplers]
        lib.pl_sample_rows(self._pool, self._states, self._logits_at, self._logits.cols, n, self._tokens)
        tokens: list[int] = ffi.unpack(self._tokens, n)
        return tokens

    def read(self, view: View, rows: int, first: int = 0) -> npt.NDArray[np.float32]:
        start = ffi.cast("uint8_t *", self._bases[view.buf]) + view.off + first * view.stride
        flat: npt.NDArray[np.float32] = np.frombuffer(ffi.buffer(start, rows * view.stride), np.float32)
        rows_of = flat.reshape(rows, view.stride // 4)[:, : view.cols]
        return np.array(rows_of, np.float32)

    def close(self) -> None:
        lib.pl_program_free(self._program)
        lib.pl_pool_free(self._pool)
        self._program = self._pool = self._step = ffi.NULL
        self._maps = []
        while self._memory:
            lib.pl_mem_free(*self._memory.pop())
