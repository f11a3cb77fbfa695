"""smallthinker: SmallThinker 4B-A0.6B, 21B-A3B. Experts, chosen by what comes before attention, with relu.

Where it has windows, one layer in four has none, and no rotary positions.
"""

from __future__ import annotations

from ..graph import SOFTMAX, Graph
from .blocks import attention, expert_linear, norm, output, rope_table, router, windows
from .hparams import Hparams

PERIOD = 4


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    n_ff = hp.keys.integer("expert_feed_forward_length", hp.n_ff)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer, window in enumerate(windows(hp, PERIOD, first=True)):
        blk = f"blk.{layer}."
        route = router(g, hp, x, layer, SOFTMAX, True)
        place = table if layer % PERIOD or not hp.sliding_window else None
        y = norm(g, hp, x, f"{blk}attn_norm")
        x = g.add(x, attention(g, hp, y, layer, place, interleaved=False, window=window))
        y = norm(g, hp, x, f"{blk}ffn_norm")
        gate, up = (expert_linear(g, hp, y, route, f"{blk}ffn_{k}", n_ff, hp.n_embd) for k in ("gate", "up"))
        y = expert_linear(g, hp, g.relu(gate, up), route, f"{blk}ffn_down", hp.n_embd, n_ff)
        x = g.add(x, g.expert_sum(y, route))
    output(g, hp, x)
