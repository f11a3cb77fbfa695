"""Collects an importance matrix: runs a text through a model and sums up squares of what its matrices are multiplied
with, per input channel, as llama.cpp's llama-imatrix does.

The model computes with float32 activations (compute="f32") and runs op by op, as the tracer does: before a matmul runs,
its input is read out of the arena. Nothing in the engine knows of this.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from ..backend import Step
from ..backend.cpu import CpuBackend
from ..compile import Op, View
from ..errors import ModelError
from ..fusion import WEIGHTS
from ..gguf import TensorInfo
from ..kvcache import PAGE
from ..model import N_OUT, Model
from ..options import ModelOptions
from .imatrix import Imatrix

#: fewer tokens than this make no chunk
LEAST_CHUNK: Final = 16

F64 = npt.NDArray[np.float64]


def collect_imatrix(
    path: str | os.PathLike[str],
    text: str,
    *,
    chunk_size: int = 512,
    n_chunks: int | None = None,
    dataset: str = "",
    process_output: bool = False,
    parse_special: bool = False,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imatrix:
    """The importance matrix of the model at `path` over a text.

    The text is cut into chunks of chunk_size tokens, each run on its own; n_chunks: at most so many, None: all. The
    first token of a chunk gives way to the begin-of-text token where the model wants one. dataset: what the result
    calls the text. process_output: output.weight too. parse_special: spellings of control tokens become those.
    progress(chunks done, chunks of all).

    ValueError if the text is shorter than a chunk or the chunk shorter than LEAST_CHUNK; GGUFError, ModelError and
    TokenizerError for a model that cannot be run.
    """
    from ..tokenizer import Tokenizer

    if chunk_size < LEAST_CHUNK:
        raise ValueError(f"a chunk of {chunk_size} tokens is too short: take {LEAST_CHUNK} or more")
    model = Model(path, model_options(chunk_size, n_threads))
    try:
        tokenizer = Tokenizer.from_gguf(model.gguf)
        ids = tokenizer.encode(text, add_special=False, parse_special=parse_special)
        bos = tokenizer.bos_id if tokenizer.add_bos else None
        if bos is not None:
            ids.insert(0, bos)
        count = len(ids) // chunk_size
        if not count:
            raise ValueError(f"the text has {len(ids)} tokens, and a chunk {chunk_size}: take a longer text")
        count = count if n_chunks is None else min(n_chunks, count)
        collector = Collector(model, process_output)
        try:
            for i in range(count):
                chunk = ids[i * chunk_size : (i + 1) * chunk_size]
                collector.run([bos, *chunk[1:]] if bos is not None else chunk)
                if progress:
                    progress(i + 1, count)
        finally:
            collector.close()
    finally:
        model.close()
    return collector.result([dataset] if dataset else [], count, chunk_size)


def model_options(chunk_size: int, n_threads: int | None = None) -> ModelOptions:
    """How the model runs: exactly, and with weights where they lie, so that views of them can be told apart."""
    return ModelOptions(
        n_ctx=chunk_size, n_batch=N_OUT, n_seqs=1, n_threads=n_threads, type_k="f32", type_v="f32", compute="f32",
        repack=False,
    )  # fmt: skip


class Collector:
    """Runs chunks of text, and adds up."""

    def __init__(self, model: Model, process_output: bool) -> None:
        self.model = model
        self.sums: dict[str, F64] = {}  # [matrices, cols]
        self.counts: dict[str, npt.NDArray[np.int64]] = {}  # [matrices]
        self._routed: set[str] = set()  # whose inputs go to matrices that a router chose
        self._tensors = sorted(model.gguf.tensors.values(), key=lambda t: (t.part, t.offset))
        self._starts = [(t.part, t.offset) for t in self._tensors]
        ops = model.program.ops
        self._wanted = {k: found for k, op in enumerate(ops) if (found := self._weights(op, process_output))}
        if not self._wanted:
            raise ModelError("the model has no matrices whose inputs could be collected")
        self._last = max(self._wanted)  # nothing after it needs to run
        target = model.target
        self.step = Step(target.n_batch, 1, target.n_out, model.n_pages)
        self.step.page[0] = np.arange(model.n_pages)
        self.backend = CpuBackend(model.n_threads)
        try:
            self.backend.load(model.program, model.gguf, self.step)
        except BaseException:
            self.backend.close()
            raise

    def close(self) -> None:
        self.backend.close()

    def _weights(self, op: Op, process_output: bool) -> list[tuple[TensorInfo, int]]:
        """The tensors that an op multiplies with and that are collected, and which of a tensor's matrices."""
        found = []
        for k in WEIGHTS.get(op.kind, ()):
            view = op.src[k]
            assert view is not None and view.buf.startswith("file")
            # graphs cut fused tensors into parts: the one that begins last before this place
            tensor = self._tensors[bisect_right(self._starts, (int(view.buf[4:]), view.off)) - 1]
            if tensor.name.startswith("blk.") or (process_output and tensor.name == "output.weight"):
                found.append((tensor, (view.off - tensor.offset) // (tensor.nbytes // n_matrices(tensor))))
        return found

    def run(self, ids: Sequence[int]) -> None:
        """One chunk, as a sequence of its own, in steps of about the same length."""
        n = len(ids)
        bounds = np.linspace(0, n, -(-n // self.model.target.n_batch) + 1).astype(int).tolist()
        for start, end in pairwise(bounds):
            self._fill(ids, start, end)
            self._step()

    def _fill(self, ids: Sequence[int], start: int, end: int) -> None:
        step, t = self.step, end - start
        pos = np.arange(start, end, dtype=np.int32)
        step.token[:t], step.pos[:t], step.slot[:t] = ids[start:end], pos, pos // PAGE * PAGE + pos % PAGE
        step.q_start[:2], step.kv_len[0] = (0, t), end
        step.long_rope[0] = 0 < self.model.graph.long_after < len(ids)
        step.out[:t] = range(t)  # all rows go all the way, those of the last layer too
        step.n_tokens, step.n_seqs, step.n_out = t, 1, t

    def _step(self) -> None:
        first, ops = 0, self.model.program.ops
        seen: set[tuple[str, int, View]] = set()
        for k, weights in self._wanted.items():
            self.backend.run(first, k)  # what comes before this matmul
            first, op = k, ops[k]
            x = op.src[1]
            assert x is not None
            keys = {(t.name, m, x): (t, m) for t, m in weights}
            new = [keys[key] for key in keys if key not in seen]  # the parts of a tensor have one input
            seen.update(keys)
            if not new:
                continue
            values = self.backend.read(x, self.step.n_tokens)
            for tensor, matrix in new:
                if op.kind == "mm_id":
                    self._add_experts(op, tensor, values)
                else:
                    self._add(tensor, matrix, values)
        # the last one needs no run: only its input was wanted

    def _entry(self, tensor: TensorInfo) -> tuple[F64, npt.NDArray[np.int64]]:
        n = n_matrices(tensor)
        if tensor.name not in self.sums:
            self.sums[tensor.name] = np.zeros((n, tensor.cols))
            self.counts[tensor.name] = np.zeros(n, np.int64)
        return self.sums[tensor.name], self.counts[tensor.name]

    def _add(self, tensor: TensorInfo, matrix: int, x: npt.NDArray[np.float32]) -> None:
        """x [rows, cols]: inputs of one matrix."""
        sums, counts = self._entry(tensor)
        sums[matrix] += np.einsum("ij,ij->j", x, x)
        counts[matrix] += len(x)
        if not np.isfinite(sums[matrix]).all():
            raise ModelError(f"the inputs of {tensor.name} are not finite: the model cannot be run on this text")

    def _add_experts(self, op: Op, tensor: TensorInfo, x: npt.NDArray[np.float32]) -> None:
        """x [rows, cols], or [rows, slots * cols]: inputs of the matrices that route names, or of slot j's matrix j."""
        slots, route, n = op.i[4], op.src[2], len(x)
        if route is None:
            chosen = np.broadcast_to(np.arange(slots), (n, slots))
        else:
            self._routed.add(tensor.name)
            chosen = self.backend.read(route, n)[:, :slots].astype(np.int64)
        for j in range(slots):
            inputs = x[:, j * tensor.cols : (j + 1) * tensor.cols] if op.i[5] else x
            for expert in np.unique(chosen[:, j]).tolist():
                self._add(tensor, expert, inputs[chosen[:, j] == expert])

    def result(self, datasets: list[str], n_chunks: int, chunk_size: int) -> Imatrix:
        # heads that are stacked see as many inputs each, and count once
        counts = {name: c if name in self._routed else c[:1] for name, c in self.counts.items()}
        return Imatrix(self.sums, counts, datasets, n_chunks, chunk_size)


def n_matrices(tensor: TensorInfo) -> int:
    """Matrices that a tensor stacks: those of experts or heads."""
    return tensor.shape[2] if len(tensor.shape) > 2 else 1
