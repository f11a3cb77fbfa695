"""arcee: AFM 4.5B. As llama, without a gate."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, RELU2, Mapping

CLASSES = ("ArceeForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(act=RELU2)
    m.key("rope.dimension_count", c.n_rot)
    m.move(DECODER, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
