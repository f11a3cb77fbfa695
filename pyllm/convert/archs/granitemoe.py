"""granitemoe: Granite 3 with experts, whose gates and ups are one tensor."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping
from .granite import factors

CLASSES = ("GraniteMoeForCausalLM",)
MOE = {
    "{L}.block_sparse_moe.router.layer": "{B}.ffn_gate_inp",
    "{L}.block_sparse_moe.output_linear": "{B}.ffn_down_exps",
}


def split_experts(m: Mapping) -> None:
    """Gates and ups of the experts."""
    for layer, name in m.each("{L}.block_sparse_moe.input_linear.weight"):
        both = m.take(name)  # [expert][gate|up][n_embd]
        n = both.shape[1] // 2
        m.put(f"blk.{layer}.ffn_gate_exps.weight", both[:, :n])
        m.put(f"blk.{layer}.ffn_up_exps.weight", both[:, n:])


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(head_dim=False)
    m.key("rope.dimension_count", c.n_embd // c.n_head)
    factors(m)
    m.experts(c.integer("num_local_experts"), c.integer("num_experts_per_tok"))
    split_experts(m)
    m.move(DECODER | MOE, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
