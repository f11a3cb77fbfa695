"""llama: Llama 1 to 3, SmolLM 1 and 2, Mistral, Mixtral, and what else GGUF stores under this name.

q and k are stored permuted for interleaved rotary pairs (2i, 2i+1). Biases, rope_freqs (Llama 3.1), linear and YaRN
scaling, an explicit head size, a sliding window, experts and an untied head are used where the file has them.
"""

from __future__ import annotations

from ..graph import Graph
from .blocks import decoder
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    decoder(g, hp, interleaved=True, window=hp.sliding_window)
