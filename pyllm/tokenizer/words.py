"""Words to ids, each distinct word once: those met before are remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain, islice
from typing import Any, Final

import numpy as np

from .._lib import lib
from ..errors import TokenizerError
from .kind import buffer, pack

# Words whose ids are remembered: at most so many, of at most so many characters.
CACHE_WORDS: Final = 32_768
CACHE_CHARACTERS: Final = 32


class WordEncoder:
    """What gives a word its ids is a function of the library. Several threads may use one."""

    def __init__(self, encode: Callable[..., int], handle: object) -> None:
        """encode: pl_bpe_encode, or another with the same arguments, of which handle is the first."""
        self._encode, self._handle = encode, handle
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, words: list[str]) -> list[int]:
        """The ids of all words, one after the other. TokenizerError for a word of 2 GiB or more."""
        unique = set(words)
        table: Any = self._cache  # entries are added to it and never taken out: threads may share it
        missing = unique.difference(table)
        if missing:
            new = self._look_up(missing)
            table = {w: table[w] for w in unique.difference(new)}
            table.update(new)
            self._remember(new)
        return list(chain.from_iterable(map(table.__getitem__, words)))

    def _remember(self, new: dict[str, tuple[int, ...]]) -> None:
        short = {w: ids for w, ids in new.items() if len(w) <= CACHE_CHARACTERS}
        if len(self._cache) + len(short) > CACHE_WORDS:
            self._cache = dict(islice(short.items(), CACHE_WORDS))
        else:
            self._cache.update(short)

    def _look_up(self, words: Collection[str]) -> dict[str, tuple[int, ...]]:
        """The ids of each word."""
        words = list(words)
        data, offsets = pack(words)
        ids = np.empty(max(len(data), 1), np.int32)
        ends = np.empty(max(len(words), 1), np.int64)
        n = self._encode(
            self._handle,
            buffer(data, "uint8_t[]"),
            buffer(offsets, "int64_t[]"),
            len(words),
            buffer(ids, "int32_t[]"),
            len(ids),
            buffer(ends, "int64_t[]"),
        )
        if n == lib.PL_E_MEM:
            raise MemoryError("no memory to tokenize the text")
        if n < 0:
            raise TokenizerError(f"a word of the text is too long to tokenize (error {n})")
        flat = ids[:n].tolist()
        result, start = {}, 0
        for word, end in zip(words, ends.tolist(), strict=False):
            result[word] = tuple(flat[start:end])
            start = end
        return result
