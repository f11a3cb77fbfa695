"""Mixtures of experts: choices at the edges, and the same bits whatever a step holds and whoever runs it."""

from __future__ import annotations

from pathlib import Path

import gguf
import gguf_bytes
import numpy as np
import numpy.typing as npt
import pytest
from test_compile import target

import pyllm
from pyllm._lib import lib
from pyllm.backend import Step
from pyllm.backend.cpu import CpuBackend
from pyllm.compile import compile_graph
from pyllm.errors import ModelError
from pyllm.gguf import GGUFFile
from pyllm.graph import SIGMOID, SOFTMAX, SOFTMAX_OF_CHOSEN, Graph

pytestmark = pytest.mark.native
D, WIDE, VOCAB, EXPERTS, USED, LAYERS = 128, 96, 64, 8, 3, 2
F32 = npt.NDArray[np.float32]
LEVELS = [i for i in range(lib.pl_cpu_levels()) if lib.pl_cpu_has(i)]


def make(path: Path, kind: str, wide: int = WIDE) -> Path:
    """A small random model of architecture qwen3moe; matrices of type `kind`, but for the router."""
    rng = np.random.default_rng(3)
    kinds = gguf.GGMLQuantizationType
    tensors = []

    def put(name: str, *shape: int) -> None:
        x = rng.standard_normal(shape).astype(np.float32)
        x = 1 + x / 10 if len(shape) == 1 else x / np.float32(shape[-1] ** 0.5)
        plain = len(shape) == 1 or kind == "F32" or name.endswith("gate_inp.weight")
        raw = x if plain else gguf.quants.quantize(x, kinds[kind])
        tensors.append(gguf_bytes.Tensor(name, shape[::-1], raw.tobytes(), 0 if plain else int(kinds[kind])))

    put("token_embd.weight", VOCAB, D)
    put("output_norm.weight", D)
    for layer in range(LAYERS):
        for name, *shape in (
            ("attn_norm", D), ("attn_q", D, D), ("attn_k", 64, D), ("attn_v", 64, D), ("attn_output", D, D),
            ("attn_q_norm", 32), ("attn_k_norm", 32), ("ffn_norm", D), ("ffn_gate_exps", EXPERTS, wide, D),
            ("ffn_up_exps", EXPERTS, wide, D), ("ffn_down_exps", EXPERTS, D, wide),
        ):  # fmt: skip
            put(f"blk.{layer}.{name}.weight", *shape)
        put(f"blk.{layer}.ffn_gate_inp.weight", EXPERTS, D)
    integers = {
        "block_count": LAYERS, "context_length": 512, "embedding_length": D, "feed_forward_length": wide,
        "attention.head_count": D // 32, "attention.head_count_kv": 2, "attention.key_length": 32,
        "expert_count": EXPERTS, "expert_used_count": USED, "expert_feed_forward_length": wide,
    }  # fmt: skip
    keys = [("general.architecture", gguf_bytes.scalar(gguf_bytes.STRING, "qwen3moe"))]
    keys += [(f"qwen3moe.{k}", gguf_bytes.scalar(gguf_bytes.U32, v)) for k, v in integers.items()]
    keys.append(("qwen3moe.attention.layer_norm_rms_epsilon", gguf_bytes.scalar(gguf_bytes.F32, 1e-6)))
    keys.append(("tokenizer.ggml.model", gguf_bytes.scalar(gguf_bytes.STRING, "gpt2")))
    keys.append(("tokenizer.ggml.pre", gguf_bytes.scalar(gguf_bytes.STRING, "gpt-2")))
    keys.append(("tokenizer.ggml.tokens", gguf_bytes.array(gguf_bytes.STRING, [f"t{i}" for i in range(VOCAB)])))
    keys.append(("tokenizer.ggml.merges", gguf_bytes.array(gguf_bytes.STRING, [])))
    path.write_bytes(gguf_bytes.file(keys, tensors))
    return path


@pytest.fixture(scope="module", params=["F32", "F16", "Q4_0", "Q5_1", "Q8_0"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("moe") / f"{request.param}.gguf", request.param)


IDS = np.random.default_rng(5).integers(0, VOCAB, 230).tolist()


def test_same_bits_whatever_runs_it(path: Path) -> None:
    """Level, threads, step size, repacking and neighbours change nothing; 230 tokens give each expert some 86."""
    before = lib.pl_cpu_level()
    with pyllm.LLM(path, n_threads=1) as llm:
        want = llm.logits(IDS).tobytes()
        alone = llm.generate(IDS[:70], max_tokens=8, temperature=0, ignore_eos=True).tokens
    for options in ({"n_threads": 2}, {"n_threads": 3, "n_batch": 7}, {"repack": False}, {"n_batch": 33}):
        with pyllm.LLM(path, **options) as llm:
            assert llm.logits(IDS).tobytes() == want, options
            prompts = [IDS[:70], IDS[:200], IDS[5:9]]
            together = llm.generate(prompts, max_tokens=8, temperature=0, ignore_eos=True)
            assert together[0].tokens == alone, options
    try:
        for level in LEVELS:
            lib.pl_cpu_set_level(level)
            with pyllm.LLM(path, n_threads=2) as llm:
                assert llm.logits(IDS).tobytes() == want, level
    finally:
        lib.pl_cpu_set_level(before)


NAN, INF = float("nan"), float("inf")
#: logits, and which three experts they choose: the lowest of equals first, a NaN after all numbers
CHOICES = [
    ([0, 0, 0, 0, 0], [0, 1, 2]),
    ([1, 3, 3, 2, 3], [1, 2, 4]),
    ([-INF, -INF, -1, -2, -INF], [2, 3, 0]),
    ([NAN, 1, NAN, 5, 2], [3, 4, 1]),
    ([NAN] * 5, [0, 1, 2]),
    ([4, 3, 2, 1, 0], [0, 1, 2]),
]


def routes(tmp_path: Path, table: F32, n_used: int, gating: int, groups: tuple[int, int, int] = (0, 0, 0)) -> F32:
    """What the op makes of rows of logits."""
    path = tmp_path / "table.gguf"
    tensors = [gguf_bytes.Tensor("table", table.shape[::-1], table.tobytes(), 0)]
    path.write_bytes(gguf_bytes.file([("general.architecture", gguf_bytes.scalar(gguf_bytes.STRING, "none"))], tensors))
    n, n_experts = table.shape
    with GGUFFile.open(path) as file:
        g = Graph(file.tensors)
        logits = g.embed(g.weight("table", n, n_experts))
        g.route(logits, n_used, gating, normalize=False, groups=groups).name = "route"
        g.output(logits, g.const("norm", np.ones(n_experts, np.float32)), 1e-6, g.weight("table", n, n_experts))
        program = compile_graph(g, target(n, "default"))
        step, backend = Step(n, 1, n, 1), CpuBackend(2)
        try:
            backend.load(program, file, step)
            step.n_tokens, step.n_seqs, step.n_out = n, 1, n
            step.token[:], step.pos[:], step.slot[:], step.out[:] = [range(n)] * 4
            step.q_start[1], step.kv_len[0] = n, n
            backend.run(0, 1 + [op.kind for op in program.ops].index("route"))  # what follows takes its memory
            return backend.read(program.values["route"], n)
        finally:
            backend.close()


@pytest.mark.parametrize("gating", [SIGMOID, SOFTMAX_OF_CHOSEN, SOFTMAX])
def test_choices(tmp_path: Path, gating: int) -> None:
    """Of embeddings as logits. With a NaN among them a softmax is NaN throughout; the choice still names experts."""
    got = routes(tmp_path, np.array([logits for logits, _ in CHOICES], np.float32), 3, gating)
    for row, (logits_of, want) in zip(got, CHOICES, strict=True):
        x = np.array(logits_of, np.float64)
        chosen = row[:3].astype(int).tolist()
        if gating == SOFTMAX and np.isnan(x).any():
            assert chosen == [0, 1, 2]
            continue
        assert chosen == want
        e = np.exp(x - x[want[0]])
        p = {SIGMOID: 1 / (1 + np.exp(-x)), SOFTMAX: e / e.sum(), SOFTMAX_OF_CHOSEN: e / e[want].sum()}[gating][want]
        np.testing.assert_allclose(row[3:], p, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("counted", [1, 2, 4])
def test_groups(tmp_path: Path, counted: int) -> None:
    """The best of the groups with the greatest sums."""
    table = np.random.default_rng(2).standard_normal((20, 32)).astype(np.float32)
    got = routes(tmp_path, table, 5, SIGMOID, (8, 3, counted))
    p = 1 / (1 + np.exp(-table.astype(np.float64)))
    sums = np.sort(p.reshape(20, 8, 4), -1)[..., -counted:].sum(-1)
    taken = np.argsort(-sums, -1)[:, :3]
    left = np.where((np.arange(32) // 4 == taken[..., None]).any(1), p, -1)
    best = np.argsort(-left, -1)[:, :5]
    assert np.array_equal(got[:, :5], best)
    np.testing.assert_allclose(got[:, 5:], np.take_along_axis(p, best, -1), rtol=1e-6)


def test_a_tensor_for_each_expert(tmp_path: Path) -> None:
    with GGUFFile.open(make(tmp_path / "model.gguf", "F32")) as file:
        tensors = dict(file.tensors)
        tensors["blk.0.ffn_gate.0.weight"] = tensors.pop("blk.0.ffn_gate_exps.weight")
        with pytest.raises(ModelError, match=r"a tensor for each expert \('blk.0.ffn_gate.0.weight"):
            Graph(tensors).experts("blk.0.ffn_gate_exps.weight", EXPERTS, WIDE, D)


def test_shapes_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ffn_gate_exps.weight' has experts of 40 rows; only multiples of 16"):
        pyllm.LLM(make(tmp_path / "odd.gguf", "F32", wide=40))
