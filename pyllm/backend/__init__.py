"""Backends run compiled programs: one Protocol, so that the engine does not know where the arithmetic happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..compile import Program, View
from ..gguf import GGUFFile
from ..sampler import Sampler


class Step:
    """The data of one step, in arrays that live as long as the backend (pl_step).

    token, pos, slot [n_batch]; q_start [n_seqs + 1]; kv_len [n_seqs]; page [n_seqs, max_pages]; out [n_out];
    long_rope [n_seqs]: int32.
    The counts say how much of each is filled.
    """

    def __init__(self, n_batch: int, n_seqs: int, n_out: int, max_pages: int) -> None:
        self.n_tokens = self.n_seqs = self.n_out = 0
        self.token = np.zeros(n_batch, np.int32)
        self.pos = np.zeros(n_batch, np.int32)
        self.slot = np.zeros(n_batch, np.int32)
        self.q_start = np.zeros(n_seqs + 1, np.int32)
        self.kv_len = np.zeros(n_seqs, np.int32)
        self.page = np.zeros((n_seqs, max_pages), np.int32)
        self.out = np.zeros(n_out, np.int32)
        self.long_rope = np.zeros(n_seqs, np.int32)


class Backend(Protocol):
    """What the engine needs of a device."""

    name: str

    def load(self, program: Program, gguf: GGUFFile, step: Step, progress: Callable[[float], None] | None) -> None:
        """Allocate, pack the weights and make the program ready for `step`. MemoryError if it does not fit."""

    def run(self, first: int = 0, last: int | None = None) -> None:
        """Run ops [first, last) for the step's current contents; the GIL is released meanwhile."""

    def sample(self, samplers: Sequence[Sampler | None]) -> list[int]:
        """Draw and accept a token for each output row of the last step that has a sampler: its id, or an error below 0
        (sampler.checked raises it)."""

    def read(self, view: View, rows: int, first: int = 0) -> npt.NDArray[np.float32]:
        """A copy of rows [first, first + rows) of a float32 view, [rows][cols]."""

    def close(self) -> None:
        """Free everything."""
