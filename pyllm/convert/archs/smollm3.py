"""smollm3: SmolLM 3. As llama; every fourth layer has no rotary positions."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping

CLASSES = ("SmolLM3ForCausalLM",)


def convert(m: Mapping) -> None:
    c = m.config
    n = c.n_layer
    if c.has("no_rope_layers") and c.items("no_rope_layers", int, n) != [int((i + 1) % 4 > 0) for i in range(n)]:
        raise c.error("only models without rotary positions in every fourth layer are supported")
    if c.flag("use_sliding_window"):
        m.window()
    m.hparams()
    m.key("rope.dimension_count", c.n_rot)
    m.move(DECODER, {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)})
