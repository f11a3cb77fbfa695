"""exaone4: EXAONE 4. Norms after attention and feed-forward, windows in the 32B."""

from __future__ import annotations

from ..mapping import DECODER, QK_NORM, Mapping
from .olmo2 import NORMS

CLASSES = ("Exaone4ForCausalLM",)


def convert(m: Mapping) -> None:
    m.hparams()
    m.windows(4)
    m.move(DECODER | QK_NORM | NORMS)
