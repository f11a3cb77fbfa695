"""mistral3: Ministral 3 and Mistral Small 3.x (their text). As llama; queries may grow with the position."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping

CLASSES = ("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration")


def convert(m: Mapping) -> None:
    c = m.config
    if c.get("model_type") == "mistral4":
        raise c.error("Mistral 4 is not supported")
    m.hparams()
    m.key("rope.dimension_count", c.n_rot)
    if c.rope.get("mscale_all_dim") is not None:
        m.key("rope.scaling.yarn_log_multiplier", c.rope_real("mscale_all_dim"))
    if c.rope.get("llama_4_scaling_beta") is not None:
        m.key("attention.temperature_scale", c.rope_real("llama_4_scaling_beta"))
    m.move(DECODER, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
