"""The compiler: no races, no lost barrier, no value overwritten, and what it makes of a graph computes the graph."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf.quants
import gguf_bytes
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from hazards import ACT, ROWS_T, Shape, is_few, races, works
from hypothesis import given, settings
from hypothesis import strategies as st

import pyllm.compile as compiler
import pyllm.fusion as fusion
from pyllm._lib import lib
from pyllm.backend import Step
from pyllm.backend.cpu import CpuBackend
from pyllm.compile import (
    Op,
    Program,
    Target,
    View,
    compile_graph,
    place_barriers,
)
from pyllm.errors import ModelError
from pyllm.gguf import GGUFFile
from pyllm.graph import Graph, Value
from pyllm.kvcache import PAGE
from pyllm.model import Model, ModelOptions

DATA = Path(__file__).parent / "data"
MODELS = [
    "models/llama_hd",
    "models/llama_untied",
    "models/qwen2",
    "models/qwen3",
    "quant/quant-Q4_1",
    "quant/quant-Q6_K",
]
#: three sequences, two of them decoding, in pages out of order; six tokens, three rows of logits
STEP = Shape([4, 1, 1], [4, 18, 10], [[2], [0, 3], [1]], [3, 2, 5])
#: two tokens of one sequence, only one of them wanting logits: a step of few tokens
FEW = Shape([2], [18], [[0, 3]], [0])


@pytest.fixture(scope="module", params=[(m, c) for m in MODELS for c in ("default", "f32")], ids=lambda p: "-".join(p))
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    name, compute = request.param
    keys = {"models/qwen3": "q8_0", "models/qwen2": "q4_0", "quant/quant-Q4_1": "q4_0"}.get(name, "bf16")
    options = ModelOptions(n_ctx=48, n_batch=STEP.n_tokens, n_seqs=3, compute=compute, type_k=keys)
    made = Model(DATA / f"{name}.gguf", options)
    yield made
    made.close()


# ---- barriers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["cohere2", "deepseek2", "falcon_h1", "gemma2", "gemma3n", "gpt2", "gptoss", "granite", "lfm2", "mamba2", "phi3"],
)
def test_no_races_in_other_architectures(shared: Path, name: str) -> None:
    options = ModelOptions(n_ctx=48, n_batch=STEP.n_tokens, n_seqs=3, compute="f32")
    made = Model(shared / "goldens" / "models" / f"{name}.gguf", options)
    try:
        assert races(made.program, STEP, 2) == []
    finally:
        made.close()


@pytest.mark.parametrize("n_threads", [2, 3])
@pytest.mark.parametrize("shape", [STEP, FEW], ids=["many", "few"])
def test_no_races(model: Model, shape: Shape, n_threads: int) -> None:
    assert races(model.program, shape, n_threads) == []


@pytest.mark.parametrize("shape", [STEP, FEW], ids=["many", "few"])
def test_every_barrier_is_needed(model: Model, shape: Shape) -> None:
    """Without any one of them two threads meet: none too many, and the checker sees what it should."""
    ops, bit = model.program.ops, 1 << is_few(shape)
    at = [0, *(k for k, op in enumerate(ops) if op.barrier & bit), len(ops)]
    assert len(at) > 3 and not ops[0].barrier
    for before, k, after in zip(at, at[1:], at[2:], strict=False):
        ops[k].barrier ^= bit
        found = races(model.program, shape, 2, before, after)
        ops[k].barrier ^= bit
        assert found, f"the barrier before {ops[k].kind} {ops[k].name} keeps nothing apart"


@pytest.mark.parametrize(("few", "count"), [(0, 7), (1, 5)])
def test_barriers_in_a_layer(model: Model, few: int, count: int) -> None:
    """As ARCHITECTURE.md says, for steps of many tokens and of few. Heads that are not whole panels are rotated and
    stored apart, 4-bit keys then after the first of their page."""
    ops = model.program.ops
    if any(op.kind == "kv_store" for op in ops):
        count += 1 + (model.options.type_k == "q4_0")
    first = [k for k, op in enumerate(ops) if op.name.split(".q8")[0].endswith("attn_norm")]
    for start, end in itertools.pairwise(first):
        part = ops[start:end]
        shared_quant = not few and any(op.kind == "quant" for op in part)  # of gate times up
        after_embed = not few and start == first[0]  # the same rows
        assert sum(op.barrier >> few & 1 for op in part) == count + shared_quant - after_embed


@pytest.mark.native
def test_few_tokens_give_the_same_bits_as_ops_one_by_one(model: Model) -> None:
    """A thread that makes inputs for itself makes what all threads share otherwise."""
    step = Step(6, 3, 6, 3)
    backend = CpuBackend(3)
    backend.load(model.program, model.gguf, step)
    step.n_tokens, step.n_seqs, step.n_out = FEW.n_tokens, len(FEW.lengths), len(FEW.out)
    step.token[:2], step.out[:1], step.q_start[:2], step.kv_len[:1] = [3, 5], FEW.out, [0, 2], FEW.kv_len
    step.page[0, : len(FEW.pages[0])] = FEW.pages[0]
    for t, s, pos in FEW.tokens():
        step.pos[t], step.slot[t] = pos, FEW.pages[s][pos // PAGE] * PAGE + pos % PAGE
    rows = []
    for bounds in ([0, len(model.program.ops)], range(len(model.program.ops) + 1)):
        for first, last in itertools.pairwise(bounds):
            backend.run(first, last)
        rows.append(backend.read(model.program.logits, 1))
    backend.close()
    assert np.array_equal(*rows) and np.isfinite(rows[0]).all()


def test_no_work_is_left_out_or_done_twice(model: Model) -> None:
    """Over all threads, each op writes each byte of its result rows once."""
    for op in model.program.ops:
        if op.kind in ("head_norm", "rope", "kv_store"):
            continue
        for k, view in enumerate(op.dst):
            if view is None or view.buf == "kv":
                continue
            rows = STEP.n_tokens if view.rows == ROWS_T else len(STEP.out)
            size = view.cols // 32 * lib.pl_act_bytes() if view.type == ACT else view.cols * 4
            want = np.concatenate([view.off + t * view.stride + np.arange(size) for t in range(rows)])
            both = [a for w in works(op, STEP, 3) for b, a in w.writes if b == view.buf]
            got = np.concatenate(both)
            got = np.sort(got[np.isin(got, want)])
            assert np.array_equal(got, np.sort(want)), f"{op.kind} {op.name} result {k}"


def place(a: View, b: View, kinds: tuple[str, str] = ("mm", "mm")) -> bool:
    """Whether an op that reads b gets a barrier after one that writes a."""
    ops = [
        Op(kinds[0], "a", [0] * 8, [0.0] * 8, [a, None], [None] * 4),
        Op(kinds[1], "b", [0] * 8, [0.0] * 8, [None, None], [b, None, None, None]),
    ]
    place_barriers(ops)
    assert ops[1].barrier in (0, 3)  # nothing is local
    return ops[1].barrier > 0


def arena(off: int, nbytes: int, stride: int = 16) -> View:
    return View("arena", 0, ROWS_T, 4, off, stride, nbytes=nbytes)


@pytest.mark.parametrize(
    ("a", "b", "barrier"),
    [
        (arena(0, 128), arena(64, 128), True),
        (arena(64, 128), arena(0, 128), True),
        (arena(0, 512), arena(64, 64), True),
        (arena(64, 64), arena(0, 512), True),
        (arena(0, 64), arena(64, 64), False),
        (arena(64, 64), arena(0, 64), False),
    ],
)
def test_overlap_is_seen_from_both_sides(a: View, b: View, barrier: bool) -> None:
    assert place(a, b) == barrier


def test_only_the_same_rows_stay_with_their_thread() -> None:
    assert not place(arena(0, 128), arena(0, 128), ("add", "quant"))
    assert place(arena(0, 128), arena(0, 128), ("add", "mm"))
    assert place(arena(0, 128), arena(0, 256, stride=32), ("add", "quant"))
    assert place(arena(0, 128), arena(64, 64), ("add", "quant"))


# ---- memory plan -------------------------------------------------------------------------------------------------


def test_values_live_until_their_last_use(model: Model) -> None:
    """Every byte that an op reads was last written by the op that the graph says makes that value."""
    graph, program = model.graph, model.program
    fused = fusion.fuse(graph.nodes, model.options.compute)
    nodes = {n.out.name: n for n in fused if n.out is not None}
    tag = np.full(program.sizes["arena"], -1)
    made: dict[str, int] = {}  # value by name -> op that wrote its memory last
    checked = 0
    for index, op in enumerate(program.ops):
        reads = [a for w in works(op, STEP, 1) for b, a in w.reads if b == "arena"]
        sources = {v.off: v for v in op.src if v is not None and v.buf == "arena"}
        for view in sources.values():
            inside = [a[(a >= view.off) & (a < view.off + view.nbytes)] for a in reads]
            writers = set(tag[np.concatenate([*inside, np.empty(0, np.int64)])])
            assert len(writers) == 1 and -1 not in writers, f"{op.kind} {op.name} reads {view} written by {writers}"
            checked += 1
        node = nodes.get(op.name.removesuffix(".q8")) if op.kind != "quant" else None
        for value in node.src if node is not None else ():
            if isinstance(value, Value) and value.name in made:
                writers = {int(tag[v.off]) for v in sources.values()}
                assert made[value.name] in writers, f"{op.kind} {op.name} does not read {value.name}"
        for w in works(op, STEP, 1):
            for b, a in w.writes:
                if b == "arena":
                    tag[a] = index
        made[op.name.removesuffix(".q8")] = index
    assert checked >= len(program.ops)


@pytest.mark.parametrize("compute", ["default", "precise"])
@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K"])
def test_second_terms_where_the_compiler_says(kind: str, compute: str) -> None:
    """Activations have rows of two terms; the op that makes them and the matmul agree on which blocks have both."""
    model = Model(DATA / f"quant/quant-{kind}.gguf", ModelOptions(n_ctx=48, n_batch=6, compute=compute))
    matmuls = [op for op in model.program.ops if op.kind in ("mm", "mm_glu", "mm_heads")]
    for op in matmuls:
        weight, act = op.src[:2]
        assert weight and act and act.type == ACT
        terms, some, number, unit = op.i[:4]
        assert terms == 2
        assert act.cols == weight.cols * 2
        assert act.stride == act.cols // 32 * lib.pl_act_bytes()
        assert act.nbytes >= act.stride * (6 if act.rows == ROWS_T else model.target.n_out)
        producer = next(o for o in reversed(model.program.ops[: model.program.ops.index(op)]) if act in o.dst)
        assert producer.i[5 if producer.kind == "attn" else 0] == 2
        assert number > 0 and unit == producer.i[7] == (8 if kind == "Q6_K" and op is not matmuls[-1] else unit)
        above = 0.0 if compute == "precise" or op is matmuls[-1] else fusion.SECOND_TERM_ABOVE
        assert producer.f[7] == above and some == (above > 0)
        assert producer.f[6] == fusion.FULL_BELOW
    model.close()


def test_f32_mode_quantizes_nothing() -> None:
    model = Model(DATA / "quant/quant-Q4_1.gguf", ModelOptions(compute="f32"))
    assert all(v.type != ACT for op in model.program.ops for v in (*op.src, *op.dst) if v)


# ---- meaning -----------------------------------------------------------------------------------------------------

D, WIDE, HEADS, HEAD, VOCAB, EXPERTS = 64, 160, 2, 32, 16, 5
SQUARE = ["blk.0.ffn_up.weight", "blk.0.attn_q.weight", "blk.1.ffn_up.weight", "blk.1.attn_v.weight"]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """A file of random weights, and their values as pyllm reads them."""

    path: Path
    values: dict[str, F64]


def make_weights(path: Path, quantized: bool) -> Weights:
    rng = np.random.default_rng(7)
    tensors, values = [], {}
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, D), "output.weight": (VOCAB, D)}
    shapes |= {**dict.fromkeys(SQUARE, (D, D)), "widen": (WIDE, D), "narrow": (D, WIDE)}
    shapes |= {"head": (HEAD,), "norm": (D,), "bias": (D,), "router": (EXPERTS, D), "share": (1, D)}
    shapes |= {"gate_exps": (EXPERTS, WIDE, D), "up_exps": (EXPERTS, WIDE, D), "down_exps": (EXPERTS, D, WIDE)}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape).astype(np.float32)
        x = x / np.float32(8) if len(shape) > 1 and name != "token_embd.weight" else x
        if len(shape) > 1 and quantized and name != "router":
            raw = gguf.quants.quantize(x, GGMLQuantizationType.Q8_0)
            x = gguf.quants.dequantize(raw, GGMLQuantizationType.Q8_0)
            tensors.append(gguf_bytes.Tensor(name, shape[::-1], raw.tobytes(), 8))
        else:
            tensors.append(gguf_bytes.Tensor(name, shape[::-1], x.tobytes(), 0))
        values[name] = x.astype(np.float64)
    path.write_bytes(gguf_bytes.file([("general.architecture", gguf_bytes.scalar(gguf_bytes.STRING, "none"))], tensors))
    return Weights(path, values)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Weights]:
    folder = tmp_path_factory.mktemp("weights")
    return {q: make_weights(folder / f"{q}.gguf", q) for q in (False, True)}


def rms(x: F64, w: F64, eps: float) -> F64:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def softmax(x: F64) -> F64:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Twin:
    """Writes a graph and computes it in numpy at the same time, float64, a step of T tokens from position 0."""

    EPS = 1e-5

    def __init__(self, graph: Graph, values: dict[str, F64], tokens: list[int]) -> None:
        self.g, self.w, self.n = graph, values, len(tokens)
        self.live: list[tuple[Value, F64]] = []
        inv_freq = (10.0 ** -np.arange(8)).astype(np.float32)
        self.table = graph.rope_table(inv_freq)
        angle = np.arange(self.n, dtype=np.float32)[:, None] * inv_freq
        self.cos, self.sin = np.cos(angle.astype(np.float64)), np.sin(angle.astype(np.float64))
        self.embedded = values["token_embd.weight"][tokens]
        self.put(graph.embed(graph.weight("token_embd.weight", VOCAB, D)), self.embedded)

    def put(self, value: Value, x: F64) -> None:
        self.live.append((value, x))

    def pick(self, k: int) -> tuple[Value, F64]:
        return self.live[k % len(self.live)]

    def pop(self, k: int) -> tuple[Value, F64]:
        return self.live.pop(k % len(self.live))

    def linear(self, a: int, b: int, c: int) -> None:
        v, x = self.pick(a)
        name, bias = SQUARE[b % 4], c % 3 == 0
        out = self.g.linear(v, self.g.weight(name, D, D), self.g.vector("bias", D) if bias else None)
        self.put(out, x @ self.w[name].T + (self.w["bias"] if bias else 0.0))

    def feed_forward(self, a: int, b: int, c: int) -> None:
        """Through a wider value."""
        v, x = self.pick(a)
        wide = self.g.linear(v, self.g.weight("widen", WIDE, D))
        self.put(self.g.linear(wide, self.g.weight("narrow", D, WIDE)), x @ self.w["widen"].T @ self.w["narrow"].T)

    def experts(self, a: int, b: int, c: int) -> None:
        """Two or three experts for each token, by its embedding: of rounded values close choices would differ."""
        v, x = self.pick(a)
        g, w, used = self.g, self.w, 2 + c % 2
        of_token = g.embed(g.weight("token_embd.weight", VOCAB, D))
        logits = self.embedded @ w["router"].T
        bias = np.linspace(-0.3, 0.3, EXPERTS).astype(np.float32) if b > 2 else np.zeros(EXPERTS, np.float32)
        choice = g.const("choice", bias) if b > 2 else None
        route = g.route(g.linear(of_token, g.weight("router", EXPERTS, D)), used, b % 3, c > 2, 0.5, choice)
        p = {0: softmax(logits), 1: 1 / (1 + np.exp(-logits)), 2: logits}[b % 3]
        best = np.argsort(-(p + bias), axis=-1)[:, :used]
        share = np.take_along_axis(p, best, -1)
        share = softmax(share) if b % 3 == 2 else share
        share = 0.5 * (share / share.sum(-1, keepdims=True) if c > 2 else share)

        wide = [g.experts(f"{name}_exps", EXPERTS, WIDE, D) for name in ("gate", "up")]
        gate, up = (g.linear_experts(v, weight, route, WIDE) for weight in wide)
        narrow = g.experts("down_exps", EXPERTS, D, WIDE)
        moved = np.sin(np.arange(EXPERTS * D)).astype(np.float32)
        y = g.linear_experts(g.silu_mul(gate, up), narrow, route, D, g.const("moved", moved) if a % 2 else None)
        total = np.zeros_like(x)
        for t, j in np.ndindex(best.shape):
            e = best[t, j]
            z = w["gate_exps"][e] @ x[t]
            z = w["down_exps"][e] @ (z / (1 + np.exp(-z)) * (w["up_exps"][e] @ x[t]))
            total[t] += share[t, j] * (z + moved.reshape(EXPERTS, D)[e] if a % 2 else z)
        if a % 3 == 0:
            self.put(g.expert_sum(y, route), total)
        elif a % 3 == 1:
            self.put(g.expert_sum(y, route, v), total + x)
        else:
            part = 1 / (1 + np.exp(-self.embedded @ w["share"].T))
            self.put(g.expert_sum(y, route, v, g.linear(of_token, g.row("share", D))), total + x * part)

    def norm(self, a: int, b: int, c: int) -> None:
        v, x = self.pick(a)
        self.put(self.g.rms_norm(v, self.g.vector("norm", D), self.EPS), rms(x, self.w["norm"], self.EPS))

    def add(self, a: int, b: int, c: int) -> None:
        (v, x), (u, y) = self.pick(a), self.pick(b)
        self.put(self.g.add(v, u), x + y)

    def silu_mul(self, a: int, b: int, c: int) -> None:
        """Of normed values, so that numbers stay small."""
        self.norm(a, 0, 0)
        self.norm(b, 0, 0)
        (u, y), (v, x) = self.live.pop(), self.live.pop()
        self.put(self.g.silu_mul(v, u), x / (1 + np.exp(-x)) * y)

    def gelu(self, a: int, b: int, c: int) -> None:
        """Gated or not, of normed values."""
        self.norm(a, 0, 0)
        self.norm(b, 0, 0)
        (u, y), (v, x) = self.live.pop(), self.live.pop()
        erf = np.vectorize(math.erf)
        phi = 1 + erf(x / 2**0.5) if c % 2 else 1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))
        self.put(self.g.gelu(v, u if b % 2 else None, bool(c % 2)), 0.5 * x * phi * (y if b % 2 else 1.0))

    def swiglu_clamped(self, a: int, b: int, c: int) -> None:
        self.norm(a, 0, 0)
        self.norm(b, 0, 0)
        (u, y), (v, x) = self.live.pop(), self.live.pop()
        m = np.minimum(x, 1.0)
        self.put(self.g.swiglu_clamped(v, u, 1.0, 1.702), m / (1 + np.exp(-1.702 * m)) * (np.clip(y, -1, 1) + 1))

    def relu(self, a: int, b: int, c: int) -> None:
        """Gated, not, or by itself: the square of relu."""
        (v, x), (u, y) = self.pick(a), self.pick(b)
        if c % 3 == 0:
            self.put(self.g.relu(v), np.maximum(x, 0))
        elif c % 3 == 1:
            self.norm(a, 0, 0)
            v, x = self.live.pop()
            self.put(self.g.relu(v, v), np.maximum(x, 0) ** 2)
        else:
            self.put(self.g.relu(v, self.g.rms_norm(u, self.g.vector("norm", D), self.EPS)),
                     np.maximum(x, 0) * rms(y, self.w["norm"], self.EPS))  # fmt: skip

    def xielu(self, a: int, b: int, c: int) -> None:
        self.norm(a, 0, 0)
        v, x = self.live.pop()
        below = 0.8 * (np.expm1(np.minimum(x, -1e-3)) - x) + 0.5 * x
        self.put(self.g.xielu(v, 0.8, 0.3, 0.5, -1e-3), np.where(x > 0, x * (0.3 * x + 0.5), below))

    def clamp(self, a: int, b: int, c: int) -> None:
        v, x = self.pop(a)
        self.put(self.g.clamp(v, 0.75), np.clip(x, -0.75, 0.75))

    def layer_norm(self, a: int, b: int, c: int) -> None:
        v, x = self.pick(a)
        centred = x - x.mean(-1, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.EPS) * self.w["norm"]
        bias = self.g.vector("bias", D) if b % 2 else None
        self.put(self.g.layer_norm(v, self.g.vector("norm", D), bias, self.EPS), y + (self.w["bias"] if bias else 0.0))

    def scale(self, a: int, b: int, c: int) -> None:
        v, x = self.pop(a)
        self.put(self.g.scale(v, 0.5), x * 0.5)

    def glu(self, a: int, b: int, c: int) -> None:
        """Gate and up of one normed value; the gate read by others too if c is a multiple of 3."""
        self.norm(a, 0, 0)
        v, x = self.live.pop()
        gate = self.g.linear(v, self.g.weight(SQUARE[b % 4], D, D))
        up = self.g.linear(v, self.g.weight(SQUARE[c % 4], D, D))
        y, z = x @ self.w[SQUARE[b % 4]].T, x @ self.w[SQUARE[c % 4]].T
        if c % 3 == 0:
            self.put(gate, y)
        if a % 2:
            self.put(self.g.silu_mul(gate, up), y / (1 + np.exp(-y)) * z)
        else:
            tanh = np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))
            self.put(self.g.gelu(gate, up), y / 2 * (1 + tanh) * z)

    def head_norm(self, a: int, b: int, c: int) -> None:
        v, x = self.pop(a)
        y = rms(x.reshape(self.n, HEADS, HEAD), self.w["head"], self.EPS).reshape(self.n, D)
        self.put(self.g.head_norm(v, self.g.vector("head", HEAD), HEADS, HEAD, self.EPS), y)

    def rope(self, a: int, b: int, c: int) -> None:
        v, x = self.pop(a)
        y = x.reshape(self.n, HEADS, HEAD).copy()
        first = np.arange(8) * 2 if b % 2 else np.arange(8)
        second = first + (1 if b % 2 else 8)
        p, q, cos, sin = y[..., first], y[..., second], self.cos[:, None], self.sin[:, None]
        y[..., first], y[..., second] = p * cos - q * sin, q * cos + p * sin
        self.put(self.g.rope(v, self.table, HEADS, HEAD, interleaved=bool(b % 2)), y.reshape(self.n, D))

    def attention(self, a: int, b: int, c: int) -> None:
        (q, x), (k, y), (v, z) = self.pick(a), self.pick(b), self.pick(c)
        chunk, window = 3 if c == 5 else 0, (0, 2, 20)[b % 3]
        out = self.g.attention(
            q, k, v, n_heads=HEADS, n_kv=HEADS, head_dim_k=HEAD, head_dim_v=HEAD, scale=0.1, window=window, chunk=chunk
        )  # fmt: skip
        heads = [t.reshape(self.n, HEADS, HEAD).transpose(1, 0, 2) for t in (x, y, z)]
        score = 0.1 * heads[0] @ heads[1].transpose(0, 2, 1)
        i, j = np.indices((self.n, self.n))
        hidden = (j // chunk != i // chunk) if chunk else (i - j >= window) if window else False
        score = np.where((j > i) | hidden, -np.inf, score)
        p = np.exp(score - score.max(-1, keepdims=True))
        self.put(out, (p / p.sum(-1, keepdims=True) @ heads[2]).transpose(1, 0, 2).reshape(self.n, D))

    def output(self) -> F64:
        v, x = self.live[-1]
        self.g.output(v, self.g.vector("norm", D), self.EPS, self.g.weight("output.weight", VOCAB, D))
        return rms(x, self.w["norm"], self.EPS) @ self.w["output.weight"].T


PAGES = [2, 0, 3, 1]
OPS = [
    "linear", "linear", "linear", "norm", "add", "add", "silu_mul", "head_norm", "rope", "attention", "feed_forward",
    "gelu", "layer_norm", "scale", "swiglu_clamped", "experts", "relu", "xielu", "clamp",
]  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(OPS), *[st.integers(0, 5)] * 3), min_size=1, max_size=14)


def target(n: int, compute: str) -> Target:
    return Target(
        n_batch=n, n_seqs=1, n_out=n, n_pages=4, type_k=0, type_v=0, compute=compute, repack=True,
        act_bytes=lib.pl_act_bytes(),
        pack_bytes=lambda kind, rows, cols: int(lib.pl_pack_bytes(kind, rows, cols)),
        kv_page_bytes=lambda kind, n_kv, head_dim, is_k: int(
            lib.pl_kv_page_bytes(kind, n_kv, head_dim, is_k)
        ),
    )  # fmt: skip


def shape_of(start: int, n: int) -> Shape:
    """A step of n tokens from position `start`, their logits in reverse."""
    end = start + n
    return Shape([n], [end], [PAGES[: -(-end // PAGE)]], list(reversed(range(n))))


def execute(program: Program, file: GGUFFile, tokens: list[int]) -> npt.NDArray[np.float32]:
    """Logits of all tokens, computed in two steps."""
    n = len(tokens)
    step = Step(n, 1, n, 4)
    step.page[0] = PAGES
    backend = CpuBackend(2)
    rows = []
    try:
        backend.load(program, file, step)
        for start, end in ((0, (n + 1) // 2), ((n + 1) // 2, n)):
            m = end - start
            if m == 0:
                continue
            step.n_tokens, step.n_seqs, step.n_out = m, 1, m
            step.token[:m], step.pos[:m], step.out[:m] = tokens[start:end], range(start, end), range(m - 1, -1, -1)
            step.slot[:m] = [PAGES[p // PAGE] * PAGE + p % PAGE for p in range(start, end)]
            step.q_start[:], step.kv_len[0] = [0, m], end
            backend.run()
            rows.append(backend.read(program.logits, m)[::-1])
        return np.concatenate(rows)
    finally:
        backend.close()


def check(weights: Weights, ops: list[tuple[str, int, int, int]], tokens: list[int], compute: str) -> float:
    """Largest difference between program and graph, relative to the logits; and the program has no races."""
    with GGUFFile.open(weights.path) as file:
        graph = Graph(file.tensors)
        twin = Twin(graph, weights.values, tokens)
        for name, a, b, c in ops:
            getattr(twin, name)(a, b, c)
        want = twin.output()
        program = compile_graph(graph, target(len(tokens), compute))
        assert races(program, shape_of(0, len(tokens)), 2) == []
        got = execute(program, file, tokens)
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.native
@settings(max_examples=150, deadline=None)
@given(ops=STEPS, n=st.sampled_from([1, 2, 5, 20]))
def test_random_graphs_in_float32(weights: dict[bool, Weights], ops: list[tuple[str, int, int, int]], n: int) -> None:
    assert check(weights[False], ops, [k * 5 % VOCAB for k in range(n)], "default") < 1e-3


@pytest.mark.native
@settings(max_examples=60, deadline=None)
@given(ops=STEPS, n=st.sampled_from([1, 5]))
def test_random_graphs_of_quantized_weights(
    weights: dict[bool, Weights], ops: list[tuple[str, int, int, int]], n: int
) -> None:
    tokens = [k * 5 % VOCAB for k in range(n)]
    assert check(weights[True], ops, tokens, "f32") < 1e-3


@pytest.mark.native
@settings(max_examples=60, deadline=None)
@given(ops=STEPS)
def test_random_graphs_of_quantized_activations(
    weights: dict[bool, Weights], ops: list[tuple[str, int, int, int]]
) -> None:
    """Two terms of 8 bits: about as good as float32 (a 2^-15th of the largest of a block).

    All blocks have both, in steps of few tokens and of many: as the mode says, and as the first positions do.
    """
    for n, compute in ((5, "precise"), (20, "precise"), (20, "default")):
        assert check(weights[True], ops, [k * 5 % VOCAB for k in range(n)], compute) < 5e-3


@settings(max_examples=60, deadline=None)
@given(ops=STEPS)
def test_random_graphs_of_mixed_activations(weights: dict[bool, Weights], ops: list[tuple[str, int, int, int]]) -> None:
    """With one term here and there each matmul adds about half a percent; a wrong value is off by its size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "second_terms", lambda w, _: 1.0 if "ffn_up" in w.name else 0.0)
        patch.setattr(fusion, "FULL_BELOW", 4.0)
        for n in (5, 20):
            assert check(weights[True], ops, [k * 5 % VOCAB for k in range(n)], "default") < 0.2


def test_the_more_blocks_are_refined_the_smaller_the_error(
    weights: dict[bool, Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = [("norm", 0, 0, 0), ("linear", 1, 0, 1), ("add", 0, 2, 0)]
    errors = []
    for above in (math.inf, 1.0, 0.9, 0.0):
        monkeypatch.setattr(fusion, "second_terms", lambda w, _, above=above: above)
        monkeypatch.setattr(fusion, "FULL_BELOW", 0.0)
        errors.append(check(weights[True], ops, [k * 5 % VOCAB for k in range(20)], "default"))
    assert 5e-4 < errors[0] < 0.05
    assert errors == sorted(errors, reverse=True) and errors[3] < errors[1] / 8


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(("a", "c", "fused"), [(0, 1, True), (1, 2, True), (0, 0, False), (1, 3, False)])
def test_gate_and_up_become_one_op(weights: dict[bool, Weights], a: int, c: int, fused: bool, n: int) -> None:
    """Unless the gate has another reader; the result is the same, in steps of few tokens and of many."""
    seen: list[str] = []

    def record(ops: list[Op]) -> None:
        seen.extend(op.kind for op in ops)
        place_barriers(ops)

    ops = [("glu", a, 1, c), ("linear", -1, 0, 1), ("add", -1, 1, 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "place_barriers", record)
        for quantized in (False, True):
            assert check(weights[quantized], ops, [k * 5 % VOCAB for k in range(n)], "precise") < 5e-3
    assert ("mm_glu" in seen) == fused


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_one_input_serves_matmuls_that_want_some_second_terms_and_all(
    weights: dict[bool, Weights], monkeypatch: pytest.MonkeyPatch, first: int, second: int
) -> None:
    """In either order; all get what the most demanding wants."""
    monkeypatch.setattr(fusion, "second_terms", lambda w, _: math.inf if "ffn_up" in w.name else 0.0)
    monkeypatch.setattr(fusion, "FULL_BELOW", 0.0)
    ops = [("norm", 0, 0, 0), ("linear", 1, first, 1), ("linear", 1, second, 1), ("add", 2, 3, 0)]
    assert check(weights[True], ops, [k * 5 % VOCAB for k in range(20)], "default") < 5e-4


def test_a_matmul_does_not_write_over_its_input(weights: dict[bool, Weights]) -> None:
    """x + x W: the residual is the input too."""
    assert check(weights[False], [("linear", 0, 0, 0), ("add", 0, 1, 0)], [1, 2, 3], "default") < 1e-3


def test_a_matmul_does_not_move_past_a_change_of_its_input(weights: dict[bool, Weights]) -> None:
    """x is multiplied, then rotated in place, and only then added to: the product is that of the old x."""
    ops = [("norm", 0, 0, 0), ("linear", 1, 0, 1), ("rope", 1, 0, 0), ("add", 0, 1, 0)]
    assert check(weights[False], ops, [1, 2, 3], "default") < 1e-3


def test_memory_does_not_grow_with_depth(weights: dict[bool, Weights]) -> None:
    """What is dead gives its place: thirty layers need the arena of four."""
    sizes = []
    with GGUFFile.open(weights[True].path) as file:
        for depth in (4, 30):
            twin = Twin(Graph(file.tensors), weights[True].values, [0])
            for _ in range(depth):
                for name, a in (("norm", -1), ("linear", -1), ("attention", -1), ("add", 0), ("feed_forward", -1)):
                    getattr(twin, name)(a, -1, -1)
                twin.live = twin.live[-1:]
            twin.output()
            sizes.append(compile_graph(twin.g, target(8, "default")).sizes["arena"])
    assert sizes[0] == sizes[1]


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_a_graph_without_output_is_refused() -> None:
    with pytest.raises(ModelError, match="no output"):
        compile_graph(Graph({}), target(4, "default"))


def test_heads_that_a_cache_cannot_hold_are_refused(weights: dict[bool, Weights]) -> None:
    with GGUFFile.open(weights[False].path) as file:
        twin = Twin(Graph(file.tensors), weights[False].values, [0])
        x, _ = twin.live[-1]
        twin.g.attention(x, x, x, n_heads=1, n_kv=1, head_dim_k=D, head_dim_v=1025, scale=0.1)
        twin.output()
        with pytest.raises(ModelError, match="heads of 1025 values are larger"):
            compile_graph(twin.g, target(4, "default"))
