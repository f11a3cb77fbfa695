"""minimax-m2: MiniMax M2. Norms over all heads of queries and keys, experts chosen by sigmoid."""

from __future__ import annotations

from ..mapping import DECODER, QK_NORM, Mapping
from .llama import MIXTRAL

NAME = "minimax-m2"
CLASSES = ("MiniMaxM2ForCausalLM",)
OWN = {"{L}.block_sparse_moe.e_score_correction_bias": "{B}.exp_probs_b.bias"}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams()
    m.key("rope.dimension_count", c.integer("rotary_dim", default=c.n_rot))
    m.experts(c.integer("num_local_experts"), c.integer("num_experts_per_tok"), c.integer("intermediate_size"))
    m.key("expert_gating_func", 2)
    m.move(DECODER | MIXTRAL | QK_NORM | OWN)
