"""gptneox: GPT-NeoX, Pythia. LayerNorm, partial rotary positions, biases, exact GELU; attention and feed-forward in
parallel unless the file says otherwise.
"""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=False, parallel=hp.keys.flag("use_parallel_residual", True), act="gelu_erf")
