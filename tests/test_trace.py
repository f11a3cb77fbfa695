"""Seeing inside a step: the trace, ranges of ops, and views, which let attention be computed again from its inputs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import pyllm
from pyllm.backend import Step
from pyllm.backend.cpu import CpuBackend
from pyllm.compile import View
from pyllm.graph import ROWS_O
from pyllm.kvcache import PAGE
from pyllm.model import Model, ModelOptions

DATA = Path(__file__).parent / "data"
QUANT = DATA / "quant" / "quant-Q4_1.gguf"
QWEN = DATA / "models" / "qwen3.gguf"

pytestmark = pytest.mark.native


def generate(path: Path, **options: Any) -> tuple[list[list[int]], int, list[Any]]:
    """(tokens of three prompts, steps, ops)"""
    with pyllm.LLM(path, n_threads=2, **options) as llm:
        outs = llm.generate([[5], [6] * 20, [7] * 3], max_tokens=4, temperature=0, ignore_eos=True)
        return [o.tokens for o in outs], llm._engine.n_steps, llm.model.program.ops


# ---- the trace ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [QUANT, QWEN], ids=lambda p: p.stem)
def test_a_trace_has_a_line_for_every_op_and_changes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want, steps, ops = generate(path)
    file = tmp_path / "trace.jsonl"
    monkeypatch.setenv("PYLLM_TRACE", str(file))
    assert generate(path)[0] == want
    lines = [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
    assert [(x["step"], x["op"]) for x in lines] == [(s, k) for s in range(steps) for k in range(len(ops))]
    for x in lines:
        op = ops[x["op"]]
        assert (x["kind"], x["name"], x["barrier"]) == (op.kind, op.name, bool(op.barrier))
        assert 0 <= x["ms"] < 60_000
        if op.dst[0] is not None and op.dst[0].buf == "arena":
            rows = 3 if x["step"] or op.dst[0].rows == ROWS_O else 24
            assert x["shape"] == [rows, op.dst[0].cols] and len(x["first"]) == 4
            assert all(np.isfinite([x["mean"], x["std"], *x["first"]]))
        else:
            assert "shape" not in x


def test_a_trace_tells_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the last op describes the logits."""
    file = tmp_path / "trace.jsonl"
    monkeypatch.setenv("PYLLM_TRACE", str(file))
    with pyllm.LLM(QWEN, n_threads=1) as llm:
        logits = llm.logits([1, 2, 3])
    last = json.loads(file.read_text().splitlines()[-1])
    assert last["name"] == "logits" and last["shape"] == list(logits.shape)
    assert last["first"] == logits[0, :4].tolist()
    assert last["mean"] == pytest.approx(logits.mean(), abs=1e-6)
    assert last["std"] == pytest.approx(logits.std(), rel=1e-5)


def test_traces_go_to_stderr_or_nowhere(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for value, lines in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("PYLLM_TRACE", value)
        generate(QUANT)
        out, err = capfd.readouterr()
        assert not out and bool(err) == lines
        assert all(json.loads(line)["kind"] for line in err.splitlines())


def test_what_is_no_number_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pyllm.LLM(QUANT) as sound:
        where = sound.model.gguf.tensors["output_norm.weight"]
    raw = bytearray(QUANT.read_bytes())
    raw[where.offset : where.offset + where.nbytes] = b"\xff" * where.nbytes
    path = tmp_path / "nan.gguf"
    path.write_bytes(raw)
    monkeypatch.setenv("PYLLM_TRACE", str(tmp_path / "trace.jsonl"))
    with pyllm.LLM(path, compute="f32", n_threads=1) as llm:
        llm.logits([1])
    lines = (tmp_path / "trace.jsonl").read_text().splitlines()
    last = json.loads(lines[-1], parse_constant=pytest.fail)
    assert last["mean"] is None and last["first"] == [None] * 4


def test_a_trace_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYLLM_TRACE", str(tmp_path / "no" / "such" / "folder"))
    with pytest.raises(FileNotFoundError):
        pyllm.LLM(QUANT)


# ---- ranges of ops -----------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A model with a backend, without an engine."""

    model: Model
    backend: CpuBackend
    step: Step

    def fill(self, sequences: list[list[int]]) -> None:
        """A step of whole sequences from position 0, each in pages of its own, all logits wanted."""
        step, t, page = self.step, 0, 0
        for s, ids in enumerate(sequences):
            n = len(ids)
            pages = -(-n // PAGE)
            step.page[s, :pages] = range(page, page + pages)
            step.token[t : t + n], step.pos[t : t + n] = ids, range(n)
            step.slot[t : t + n] = page * PAGE + np.arange(n)
            step.q_start[s : s + 2], step.kv_len[s] = [t, t + n], n
            t, page = t + n, page + pages
        step.n_tokens, step.n_seqs, step.n_out = t, len(sequences), min(t, len(step.out))
        step.out[: step.n_out] = range(step.n_out)

    def read(self, view: View | None) -> npt.NDArray[np.float32]:
        assert view is not None
        return self.backend.read(view, self.step.n_tokens)


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Of the path and options in the parameter."""
    path, options = request.param
    model = Model(path, ModelOptions(n_ctx=64, n_batch=48, n_threads=2, **options))
    step = Step(model.n_batch, model.target.n_seqs, model.target.n_out, 4)
    backend = CpuBackend(2)
    backend.load(model.program, model.gguf, step)
    yield Bench(model, backend, step)
    backend.close()
    model.close()


IDS = [[5, 9, 3, 100, 7] * 4, [8], [2, 4, 6] * 6]


@pytest.mark.parametrize("bench", [(QUANT, {}), (QWEN, {})], indirect=True, ids=["quant", "qwen3"])
def test_ops_run_in_ranges(bench: Bench) -> None:
    """All at once, one by one, or cut anywhere: the same bits, and every value can be read in between."""
    bench.fill(IDS)
    n, logits = len(bench.model.program.ops), bench.model.program.logits
    bench.backend.run()
    want = bench.backend.read(logits, bench.step.n_out)
    assert np.isfinite(want).all() and want.std() > 0.1
    for cuts in ([0, n // 2, n], list(range(n + 1)), [0, 3, 3, n]):
        for first, last in itertools.pairwise(cuts):
            bench.backend.run(first, last)
        assert np.array_equal(bench.backend.read(logits, bench.step.n_out), want)
    assert np.array_equal(bench.backend.read(logits, 2, first=3), want[3:5])
    embed = bench.model.program.ops[1]
    bench.backend.run(0, 2)
    assert embed.kind == "embed" and embed.dst[0] is not None
    rows = bench.model.gguf.tensors["token_embd.weight"].dequantize()
    got = bench.backend.read(embed.dst[0], bench.step.n_tokens)
    assert np.array_equal(got, rows[[i for ids in IDS for i in ids]])


@pytest.mark.parametrize("bench", [(QWEN, {})], indirect=True, ids=["qwen3"])
@pytest.mark.parametrize(("first", "last"), [(-1, 3), (0, 1000), (5, 4)])
def test_ranges_that_are_none_are_refused(bench: Bench, first: int, last: int) -> None:
    bench.fill(IDS)
    with pytest.raises(pyllm.PyllmError, match="not sound"):
        bench.backend.run(first, last)


#: what makes a step wrong: a field, where (t: the last token, s: the last sequence), and the value
SPOILERS = [
    ("n_tokens", None, 0), ("n_tokens", None, 49), ("n_seqs", None, 0), ("n_seqs", None, 17), ("n_out", None, 49),
    ("n_out", None, -1), ("token", "t", -1), ("token", "t", 1 << 20), ("pos", "t", -1), ("pos", "t", 18),
    ("slot", "t", -1), ("slot", "t", 1 << 20), ("page", "s", -1), ("page", "s", 1 << 20), ("q_start", 0, 1),
    ("q_start", 1, 45), ("q_start", "end", 38), ("kv_len", "s", 1), ("kv_len", "s", 1 << 20), ("out", 0, -1),
    ("out", 0, 39),
]  # fmt: skip


@pytest.mark.parametrize("bench", [(QWEN, {})], indirect=True, ids=["qwen3"])
@pytest.mark.parametrize("wrong", SPOILERS, ids=str)
def test_a_step_that_is_not_sound_is_refused(bench: Bench, wrong: tuple[str, Any, int]) -> None:
    """C checks every number of a step before an op uses it."""
    bench.fill(IDS)
    assert (bench.step.n_tokens, bench.step.n_seqs) == (39, 3)
    bench.backend.run()
    field, at, value = wrong
    if at is None:
        setattr(bench.step, field, value)
    else:
        getattr(bench.step, field)[{"t": 38, "s": 2 if field != "page" else (2, 0), "end": 3}.get(at, at)] = value
    with pytest.raises(pyllm.PyllmError, match="not sound"):
        bench.backend.run()


# ---- attention from its inputs -----------------------------------------------------------------------------------


def stored(x: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float64]:
    """What the cache gives back of x [..., head_dim]: rounded to nearest even in its type."""
    if kind == "f16":
        return x.astype(np.float16).astype(np.float64)
    if kind == "bf16":
        bits = x.view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    if kind == "q8_0":  # the scale in float16, the largest of a block of 32 at 127
        blocks = x.reshape(-1, 32)
        scale = (np.abs(blocks).max(1, keepdims=True) / np.float32(127)).astype(np.float16).astype(np.float32)
        q = np.clip(np.rint(blocks * (np.float32(1) / np.where(scale > 0, scale, 1))), -127, 127)
        return (q * scale).reshape(x.shape).astype(np.float64)
    return x.astype(np.float64)


def heads(x: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """[T][n * d] -> [n][T][d]"""
    return x.reshape(len(x), n, -1).transpose(1, 0, 2)


def check_attention(bench: Bench, sequences: list[list[int]], window: int = 0) -> None:
    """softmax(q K^T / sqrt(d)) V of each sequence on its own, K and V as the cache's types hold them."""
    hp, options = bench.model.hparams, bench.model.options
    bench.fill(sequences)
    ops = bench.model.program.ops
    at = next(k for k, op in enumerate(ops) if op.kind == "attn")
    keys, values = ops[at - 2 : at]  # matmuls that store their heads
    assert (keys.kind, values.kind, keys.i[7], values.i[7]) == ("mm_heads", "mm_heads", 1, 2)
    assert ops[at].i[4] == window
    bench.backend.run(0, at)
    q, k, v = map(bench.read, (ops[at].src[0], keys.dst[0], values.dst[0]))
    bench.backend.run(at, at + 1)  # which may write over k and v
    got = bench.read(ops[at].dst[0])
    group = hp.n_head // hp.n_head_kv
    t = 0
    for ids in sequences:
        n = len(ids)
        rows = slice(t, t + n)
        t += n
        qs = heads(q[rows], hp.n_head).astype(np.float64)
        ks = np.repeat(stored(heads(k[rows], hp.n_head_kv), options.type_k), group, axis=0)
        vs = np.repeat(stored(heads(v[rows], hp.n_head_kv), options.type_v), group, axis=0)
        score = qs @ ks.transpose(0, 2, 1) / np.sqrt(hp.head_dim_k)
        ago = np.arange(n)[:, None] - np.arange(n)
        score[:, (ago < 0) | (ago >= (window or n))] = -np.inf
        p = np.exp(score - score.max(-1, keepdims=True))
        want = (p / p.sum(-1, keepdims=True) @ vs).transpose(1, 0, 2).reshape(n, -1)
        # float32 arithmetic: chains of head_dim and of n products, exponents of the size of the scores
        bound = 2**-23 * (hp.head_dim_k + n + 4 * np.abs(score[np.isfinite(score)]).max()) * np.abs(vs).max()
        assert np.abs(got[rows] - want).max() < bound


#: quantized keys, which are rotated, are the business of test_attention.py
TYPES = [("f32", "f32"), ("f16", "f32"), ("f16", "f16"), ("bf16", "f32"), ("bf16", "bf16"), ("f32", "q8_0")]


@pytest.mark.parametrize(
    "bench",
    [(QWEN, {"compute": "f32", "type_k": k, "type_v": v}) for k, v in TYPES],
    indirect=True,
    ids=[f"{k}-{v}" for k, v in TYPES],
)
def test_attention_is_that_of_the_rounded_cache(bench: Bench) -> None:
    check_attention(bench, IDS)


@pytest.mark.parametrize("window", [0, 1, 5, 17, 256, 300])
def test_attention_over_many_keys_and_through_windows(window: int) -> None:
    """Longer than the 256 keys that are taken at a time; windows that begin anywhere in those."""
    model = Model(QWEN, ModelOptions(n_ctx=512, n_batch=512, compute="f32", type_k="f32", type_v="f32"))
    for op in model.program.ops:
        if op.kind == "attn":
            op.i[4] = window
    step = Step(512, 16, model.target.n_out, 32)
    backend = CpuBackend(2)
    backend.load(model.program, model.gguf, step)
    rng = np.random.default_rng(3)
    check_attention(Bench(model, backend, step), [rng.integers(0, 499, n).tolist() for n in (330, 1, 150)], window)
    backend.close()
    model.close()
