"""command-r: Command R, Aya. Rotary pairs are interleaved in the checkpoint already."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

NAME = "command-r"
CLASSES = ("CohereForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    if c.flag("use_qk_norm"):
        raise c.error("Command R+ (norms of queries and keys) is not supported")
    m.hparams(norm="layer", head_dim=False)
    if c.has("model_max_length"):  # what it was trained for; max_position_embeddings is what it was tuned at
        m.key("context_length", c.integer("model_max_length"))
    m.key("rope.scaling.type", "none")
    m.key("logit_scale", c.real("logit_scale", default=0.0625))
    m.move(DECODER)
