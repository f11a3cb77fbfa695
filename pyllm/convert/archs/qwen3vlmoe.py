"""qwen3vlmoe: Qwen 3 VL with experts (its text). As qwen3moe; experts are stacked in the checkpoint, transposed."""

from __future__ import annotations

from ..lazy import transpose
from ..mapping import DECODER, EXPERTS, QK_NORM, Mapping
from .qwen2vl import sections
from .qwen3vl import deepstack

CLASSES = ("Qwen3VLMoeForConditionalGeneration",)


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    sections(m)
    deepstack(m)
    n_ff = c.integer("moe_intermediate_size")
    m.experts(c.integer("num_experts", "num_local_experts"), c.integer("num_experts_per_tok"), n_ff)
    for layer, name in m.each("{L}.mlp.experts.gate_up_proj"):
        both, down = m.take(name), m.take(f"model.layers.{layer}.mlp.experts.down_proj")
        if down.shape[1:] == (n_ff, c.n_embd):  # as released; transformers 5 saves them as other experts
            both, down = transpose(both), transpose(down)
        if both.shape[1:] != (2 * n_ff, c.n_embd) or down.shape[1:] != (c.n_embd, n_ff):
            raise c.error(f"experts of shapes {both.shape} and {down.shape} are no SwiGLUs of width {n_ff}")
        m.put(f"blk.{layer}.ffn_gate_exps.weight", both[:, :n_ff])
        m.put(f"blk.{layer}.ffn_up_exps.weight", both[:, n_ff:])
        m.put(f"blk.{layer}.ffn_down_exps.weight", down)
    m.move(DECODER | EXPERTS | QK_NORM)
