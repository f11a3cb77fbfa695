"""Pages of the KV cache: who holds which, and finding again what was computed before.

Python owns page ids, C owns their bytes. A page is PAGE tokens of all layers. A full page is known by the chain of
pages before it and by its own tokens, so a sequence that starts like an earlier one takes over its pages (prefix
reuse, as in vLLM's automatic prefix caching: Kwon et al. 2023). Pages are shared by reference count; one that nobody
holds stays findable until its memory is needed, least recently used first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ._lib import lib

#: Tokens per page.
PAGE: int = lib.PL_PAGE

#: (serial number of the page before, for the first the kind of sequence; the tokens)
_Key = tuple[int, tuple[int, ...]]


class KVCache:
    """Bookkeeping for n_pages pages."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self._refs = [0] * n_pages
        self._free = list(range(n_pages - 1, -1, -1))  # never used or forgotten; the last is taken first
        self._idle: OrderedDict[int, None] = OrderedDict()  # findable, held by nobody; oldest first
        self._by_key: dict[_Key, int] = {}
        self._key_of: dict[int, _Key] = {}
        self._serial_of: dict[int, int] = {}  # of findable pages; a page that is filled anew gets a new number
        self._serial = 1  # 0 and 1 stand before the first pages

    @property
    def available(self) -> int:
        """Pages that take() could give out now."""
        return len(self._free) + len(self._idle)

    def take(self) -> int | None:
        """A page for new tokens, held once; None when all are held."""
        if self._free:
            page = self._free.pop()
        elif self._idle:
            page, _ = self._idle.popitem(last=False)
            self._forget(page)
        else:
            return None
        self._refs[page] = 1
        return page

    def _forget(self, page: int) -> None:
        del self._by_key[self._key_of.pop(page)]
        del self._serial_of[page]

    def release(self, pages: Sequence[int]) -> None:
        """Give up one hold on each page; later pages of a prefix are reused for new tokens before earlier ones."""
        for page in reversed(pages):
            self._refs[page] -= 1
            if self._refs[page] == 0:
                if page in self._key_of:
                    self._idle[page] = None
                else:
                    self._free.append(page)

    def remember(self, page: int, before: int | None, tokens: Sequence[int], kind: bool = False) -> None:
        """Make a full page findable: it holds `tokens` after those of page `before`. The first of equals stays.

        Sequences of one kind do not find pages of the other."""
        parent = int(kind) if before is None else self._serial_of.get(before, -1)
        key = (parent, tuple(tokens))
        if parent < 0 or page in self._key_of or key in self._by_key:
            return
        self._serial += 1
        self._by_key[key], self._key_of[page], self._serial_of[page] = page, key, self._serial

    def match(self, tokens: Sequence[int], kind: bool = False) -> list[int]:
        """Pages of this kind that already hold the beginning of `tokens`, each held once more for the caller.

        At least one token is left over, since its logits have to be computed.
        """
        pages: list[int] = []
        parent = int(kind)
        for start in range(0, (len(tokens) - 1) // PAGE * PAGE, PAGE):
            page = self._by_key.get((parent, tuple(tokens[start : start + PAGE])))
            if page is None:
                break
            pages.append(page)
            parent = self._serial_of[page]
        for page in pages:
            if self._refs[page] == 0:
                del self._idle[page]
            self._refs[page] += 1
        return pages

    def clear(self) -> None:
        """Forget every page that nobody holds."""
        for page in list(self._idle):
            self._forget(page)
            self._free.append(page)
        self._idle.clear()
