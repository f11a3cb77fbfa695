"""gpt-oss: gpt-oss 20B and 120B. Experts with a clamped gate, biases, sinks, a window in every other layer."""

from __future__ import annotations

from ..graph import SOFTMAX_OF_CHOSEN, Graph
from .blocks import attention, moe, norm, output
from .hparams import Hparams

#: of the experts' gates
LIMIT, ALPHA = 7.0, 1.702
#: YaRN factor and original context of the released models, whose configuration says not to round the bounds of the
#: ramp; GGUF has no key for that, and elsewhere they are rounded
UNROUNDED = (32.0, 4096)


def build(g: Graph, hp: Hparams) -> None:
    scaling = hp.rope_scaling
    rounded = (scaling.factor, scaling.original_context_length) != UNROUNDED
    table = g.rope_table(*hp.rope_frequencies(rounded=rounded))
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        blk = f"blk.{layer}."
        y = norm(g, hp, x, f"{blk}attn_norm")
        sinks = g.vector(f"{blk}attn_sinks.weight", hp.n_head)
        window = 0 if layer % 2 else hp.sliding_window
        x = g.add(x, attention(g, hp, y, layer, table, interleaved=False, window=window, sinks=sinks))
        y = norm(g, hp, x, f"{blk}post_attention_norm")
        x = g.add(x, moe(g, hp, y, layer, gating=SOFTMAX_OF_CHOSEN, normalize=False, clamp=(LIMIT, ALPHA)))
    output(g, hp, x)
