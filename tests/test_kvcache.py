"""Page bookkeeping against a model of it: a tree of what was computed, kept by object identity."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pyllm.kvcache import PAGE, KVCache


@dataclass(eq=False)
class Node:
    """A findable page: `tokens` after those of `parent`; dead once its memory was given out again."""

    page: int
    tokens: tuple[int, ...]
    children: list[Node] = field(default_factory=list)
    alive: bool = True


@dataclass(eq=False)
class Holder:
    """A sequence: all its tokens, and its pages, of which `full` are filled."""

    tokens: list[int]
    pages: list[int]
    full: int = 0

    def page_tokens(self, index: int) -> tuple[int, ...]:
        return tuple(self.tokens[index * PAGE : (index + 1) * PAGE])


# two kinds of page, so that beginnings are shared often; a tail that fills no page
TEXT = st.tuples(st.lists(st.booleans(), max_size=5), st.integers(0, PAGE - 1)).map(
    lambda t: [int(b) for b in t[0] for _ in range(PAGE)] + [7] * t[1]
)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.kv = KVCache(8)
        self.root = Node(-1, ())
        self.node_of: dict[int, Node] = {}
        self.holders: list[Holder] = []

    def held(self) -> set[int]:
        return {page for h in self.holders for page in h.pages}

    @rule(tokens=TEXT)
    def start(self, tokens: list[int]) -> None:
        """A new sequence gets exactly the longest chain of living pages, less than all of its tokens."""
        want, node = [], self.root
        for at in range(0, len(tokens) - PAGE, PAGE):
            key = tuple(tokens[at : at + PAGE])
            found = [c for c in node.children if c.alive and c.tokens == key]
            if not found:
                break
            node = found[0]
            want.append(node.page)
        pages = self.kv.match(tokens)
        assert pages == want and len(pages) * PAGE < max(len(tokens), 1)
        self.holders.append(Holder(tokens, pages, len(pages)))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def grow(self, data: st.DataObject) -> None:
        """A sequence takes a page: one that nobody holds, and none only if all are held."""
        holder = data.draw(st.sampled_from(self.holders))
        if len(holder.pages) * PAGE >= len(holder.tokens):
            return
        held = self.held()
        page = self.kv.take()
        if page is None:
            assert len(held) == self.kv.n_pages
            return
        assert page not in held and 0 <= page < self.kv.n_pages
        if page in self.node_of:
            self.node_of.pop(page).alive = False
        holder.pages.append(page)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        """A sequence's next page is full; it becomes findable unless an equal one is, or its chain is broken."""
        holder = data.draw(st.sampled_from(self.holders))
        i = holder.full
        if i == len(holder.pages) or (i + 1) * PAGE > len(holder.tokens):
            return
        page, tokens = holder.pages[i], holder.page_tokens(i)
        before = holder.pages[i - 1] if i else None
        self.kv.remember(page, before, tokens)
        holder.full += 1
        parent = self.root if before is None else self.node_of.get(before)
        if parent and not any(c.alive and c.tokens == tokens for c in parent.children):
            self.node_of[page] = Node(page, tokens)
            parent.children.append(self.node_of[page])

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        self.holders.remove(holder)
        self.kv.release(holder.pages)

    @rule()
    def clear(self) -> None:
        self.kv.clear()
        held = self.held()
        for page in [p for p in self.node_of if p not in held]:
            self.node_of.pop(page).alive = False

    @invariant()
    def counts(self) -> None:
        assert self.kv.available == self.kv.n_pages - len(self.held())


TestKVCache = Machine.TestCase
TestKVCache.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def filled(kv: KVCache, tokens: list[int]) -> list[int]:
    """Compute a sequence as the scheduler does; its pages."""
    pages = kv.match(tokens)
    while len(pages) * PAGE < len(tokens):
        page = kv.take()
        assert page is not None
        pages.append(page)
    for i in range(len(tokens) // PAGE):
        kv.remember(pages[i], pages[i - 1] if i else None, tokens[i * PAGE : (i + 1) * PAGE])
    return pages


def test_pages_are_reused_oldest_first_and_ends_before_beginnings() -> None:
    kv = KVCache(6)
    old = filled(kv, [1] * PAGE * 2)
    new = filled(kv, [2] * PAGE * 2)
    kv.release(old)
    kv.release(new)
    unused = {kv.take(), kv.take()}
    assert unused == set(range(6)) - {*old, *new}  # memory that holds nothing goes first
    assert [kv.take() for _ in range(5)] == [old[1], old[0], new[1], new[0], None]


def test_use_makes_a_page_young() -> None:
    kv = KVCache(2)
    a = filled(kv, [1] * PAGE)
    kv.release(a)
    b = filled(kv, [2] * PAGE)
    kv.release(b)
    kv.release(kv.match([1] * (PAGE + 1)))
    assert [kv.take(), kv.take()] == [*b, *a]


def test_a_page_that_is_filled_anew_does_not_carry_its_old_chain() -> None:
    """The page after a beginning that was computed anew, elsewhere, is still found by that beginning only."""
    kv = KVCache(2)
    first = filled(kv, [1] * PAGE + [2] * PAGE)
    kv.release(first)
    kv.take()  # the second page, which the end of the chain gives up first
    other = kv.take()
    assert other == first[0]
    kv.release([other])
    pages = filled(kv, [3] * PAGE)
    assert pages == [other]
    assert kv.match([1] * PAGE + [2] * PAGE + [0]) == []
    assert kv.match([3] * PAGE + [2] * PAGE + [0]) == pages


def test_what_follows_a_page_that_is_not_findable_is_not_either() -> None:
    """Two sequences compute the same at the same time: the second's pages hang on nothing."""
    kv = KVCache(4)
    pages = [kv.take() for _ in range(4)]
    for first, second in ((pages[0], pages[1]), (pages[2], pages[3])):
        assert first is not None and second is not None
        kv.remember(first, None, [1] * PAGE)
        kv.remember(second, first, [2] * PAGE)
    assert kv.match([2] * PAGE + [0]) == []
    assert kv.match([1] * PAGE + [2] * PAGE + [0]) == pages[:2]


@pytest.mark.parametrize("n", [0, 1, PAGE - 1, PAGE])
def test_the_last_token_is_never_found(n: int) -> None:
    """Its logits have to be computed, so a sequence of whole pages gives up its last one."""
    kv = KVCache(4)
    filled(kv, [1] * PAGE * 2)
    assert len(kv.match([1] * (PAGE + n))) == (1 if n else 0)
