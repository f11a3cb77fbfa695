"""llama4: Llama 4 Scout and Maverick, text.

Three layers of four rotate, and see the positions of their chunk; q and k are normed after that, but in the Maverick.
The fourth sees everything, and its queries grow with the position. One expert per token gets its input times the
sigmoid of its logit; a shared one works beside it.
"""

from __future__ import annotations

import numpy as np

from ..errors import ModelError
from ..graph import SIGMOID, Graph, Value
from .blocks import attention, expert_linear, feed_forward, linear, norm, output, rope_table, router
from .hparams import Hparams

CHUNK, PERIOD = 8192, 4
#: how queries of layers that see everything grow: see Graph.rope_table
GROWTH = (0.1, 8192, 1)
#: of the Maverick
EXPERTS_WITHOUT_NORM = 128


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    in_chunks = hp.sliding_window > 0 or not hp.keys.has("attention.sliding_window")
    unrotated = g.rope_table(np.zeros(hp.head_dim_k // 2, np.float32), name="growth", growth=GROWTH)
    ones = np.ones(hp.head_dim_k, np.float32)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        blk = f"blk.{layer}."
        y = norm(g, hp, x, f"{blk}attn_norm")
        if in_chunks and (layer + 1) % PERIOD == 0:
            y = attention(g, hp, y, layer, None, interleaved=True, q_table=unrotated)
        else:
            qk_norm = "" if hp.n_expert == EXPERTS_WITHOUT_NORM else "rotated"
            for name in ("attn_q_norm", "attn_k_norm") if qk_norm else ():
                g.const(f"{blk}{name}.weight", ones)
            chunk = CHUNK if in_chunks else 0
            y = attention(g, hp, y, layer, table, interleaved=True, qk_norm=qk_norm, chunk=chunk)
        x = g.add(x, y)
        y = norm(g, hp, x, f"{blk}ffn_norm")
        has_experts = g.has(f"{blk}ffn_gate_inp.weight")
        x = g.add(x, _experts(g, hp, y, layer) if has_experts else feed_forward(g, hp, y, layer))
    output(g, hp, x)


def _experts(g: Graph, hp: Hparams, x: Value, layer: int) -> Value:
    """[T][n_embd] of normed x."""
    blk, d, n_ff = f"blk.{layer}.", hp.n_embd, hp.keys.integer("expert_feed_forward_length")
    if hp.n_expert_used != 1:
        raise ModelError(f"Llama 4 with {hp.n_expert_used} experts per token is not supported")
    route = router(g, hp, x, layer, SIGMOID, False)
    weighted = g.expert_sum(x, route)
    gate, up = (expert_linear(g, hp, weighted, route, f"{blk}ffn_{k}", n_ff, d) for k in ("gate", "up"))
    y = expert_linear(g, hp, g.silu_mul(gate, up), route, f"{blk}ffn_down", d, n_ff)
    n_ff = g.rows_of(f"{blk}ffn_gate_shexp.weight")
    gate, up = (linear(g, x, f"{blk}ffn_{k}_shexp", n_ff) for k in ("gate", "up"))
    return g.add(y, linear(g, g.silu_mul(gate, up), f"{blk}ffn_down_shexp", d))
