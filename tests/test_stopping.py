"""Stop strings against their definition, whatever pieces the text arrives in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyllm.stopping import StopStrings

TEXT = st.text("ab€", max_size=30)
STOPS = st.lists(st.text("ab€", min_size=1, max_size=4), max_size=4)


def pieces(text: str, cuts: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(c % (len(text) + 1) for c in cuts)})
    return [text[a:b] for a, b in pairwise(borders)]


def definition(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The shortest beginning of text that ends with a stop string, without it (the longest that ends there)."""
    for end in range(1, len(text) + 1):
        ending = [s for s in stops if text[:end].endswith(s)]
        if ending:
            stop = max(ending, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(TEXT, STOPS, st.lists(st.integers(0, 40), max_size=8))
def test_definition_in_any_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    want, matched = definition(text, stops)
    stop = StopStrings(stops)
    shown = ""
    for piece in pieces(text, cuts):
        shown += stop.push(piece)
        assert want.startswith(shown)  # nothing is shown that is taken back
        if stop.matched is not None:
            break
    else:
        shown += stop.flush()
        assert stop.flush() == ""
    assert (shown, stop.matched) == (want, matched)


@given(TEXT, STOPS)
def test_no_more_is_held_back_than_can_become_a_stop_string(text: str, stops: list[str]) -> None:
    stop = StopStrings(stops)
    shown = stop.push(text)
    if stop.matched is None:
        held = text[len(shown) :]
        assert held == "" or any(s != held and s.startswith(held) for s in stops)


@pytest.mark.parametrize("strings", [[], [""]])
def test_without_strings_nothing_is_held(strings: list[str]) -> None:
    stop = StopStrings(strings)
    assert stop.push("abc") == "abc" and stop.push("") == "" and stop.flush() == "" and stop.matched is None


def test_the_longer_of_two_that_begin_alike_waits() -> None:
    stop = StopStrings(["</s>", "</user>"])
    assert [stop.push(p) for p in ("x<", "/us", "es", "</us", "er>")] == ["x", "", "</uses", "", ""]
    assert stop.matched == "</user>"
