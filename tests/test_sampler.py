"""Sampling against definitions written in numpy and plain Python, against statistics, and at the edges."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllm._lib import ffi, lib
from pyllm.errors import SamplingError
from pyllm.sampler import Sampler, SamplingParams, dry_breakers

pytestmark = pytest.mark.native
OFF: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
INF = float("inf")


def sampler(n_vocab: int, history: Any = (), **params: Any) -> Sampler:
    return Sampler(SamplingParams(**{**OFF, "seed": 1, **params}), n_vocab, prompt_ids=history)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


# ---- definitions, in the order of the chain ----------------------------------------------------------------


def adjusted(x: np.ndarray, history: list[int], p: dict[str, Any]) -> np.ndarray:
    x = x.astype(np.float64).copy()
    for token, bias in p.get("logit_bias", {}).items():
        x[token] += bias
    last_n = p.get("repeat_last_n", 64)
    recent = history if last_n < 0 else history[len(history) - min(last_n, len(history)) :]
    for token, count in Counter(recent).items():
        repeat = p.get("repeat_penalty", 1.0)
        x[token] = x[token] * repeat if x[token] <= 0 else x[token] / repeat
        x[token] -= count * p.get("frequency_penalty", 0.0) + p.get("presence_penalty", 0.0)
    return x


def chain(x: np.ndarray, p: dict[str, Any]) -> dict[int, float]:
    """Token -> probability after top-n-sigma .. temperature, straight from the definitions."""
    ids = np.flatnonzero(x > -np.inf)
    if p.get("top_n_sigma", -1) > 0:
        ids = ids[x[ids] >= x[ids].max() - p["top_n_sigma"] * x[ids].std()]
    ids = ids[np.lexsort((ids, -x[ids]))]
    if p.get("top_k", 0) > 0:
        ids = ids[: p["top_k"]]
    if p.get("typical_p", 1.0) < 1:
        q = softmax(x[ids])
        away = np.abs(-np.log(q) - (-(q * np.log(q)).sum()))
        order = np.argsort(away, kind="stable")
        n = int(np.argmax(np.cumsum(q[order]) > p["typical_p"])) + 1
        ids = ids[np.sort(order[:n])]
    if p.get("top_p", 1.0) < 1:
        ids = ids[: int(np.argmax(np.cumsum(softmax(x[ids])) >= p["top_p"])) + 1]
    if p.get("min_p", 0.0) > 0:
        q = softmax(x[ids])
        ids = ids[q >= p["min_p"] * q.max()]
    if p.get("xtc_probability", 0.0) == 1:
        n = int((softmax(x[ids]) >= p["xtc_threshold"]).sum())
        ids = ids[max(n - 1, 0) :]
    q = softmax(x[ids] / p["temperature"])
    return dict(zip(ids.tolist(), q.tolist(), strict=True))


def assert_same(ours: tuple[np.ndarray, np.ndarray], theirs: dict[int, float]) -> None:
    assert set(ours[0].tolist()) == set(theirs)
    for token, p in zip(*ours, strict=True):
        assert abs(p - theirs[int(token)]) < 2e-6


# irrational-looking parameters: a candidate exactly on a border would be decided by rounding
CHAINS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.31, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 1, 5, 40, 300, 10**6]),
        "top_p": st.sampled_from([1.0, 0.901234, 0.412345]),
        "min_p": st.sampled_from([0.0, 0.0512345, 0.3123]),
        "typical_p": st.sampled_from([1.0, 1.0, 0.71234]),
        "top_n_sigma": st.sampled_from([-1.0, 1.1234, 2.71234]),
        "xtc_probability": st.sampled_from([0.0, 1.0]),
        "xtc_threshold": st.sampled_from([0.0312345, 0.112345]),
    }
)


@settings(max_examples=300, deadline=None)
@given(CHAINS, st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 63, 64, 500, 3000, 20000]), st.booleans())
def test_chain_follows_the_definitions(params: dict[str, Any], seed: int, n: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(n) * rng.uniform(0.5, 6)).astype(np.float32)
    if masked and n > 2:
        x[rng.integers(0, n, n // 3)] = -INF
    before = x.copy()
    assert_same(sampler(n, **params).candidates(x), chain(x, params))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("k", [1, 2, 40, 63, 64, 65, 500, 1000, 5000])
@pytest.mark.parametrize("shape", ["random", "ascending", "descending", "constant", "few values", "ends"])
@pytest.mark.parametrize("n", [5000, 150_001])
def test_top_k_is_exact(n: int, shape: str, k: int) -> None:
    """The k best, lowest ids first among equals, whatever the order of the logits."""
    rng = np.random.default_rng(k)
    x = {
        "random": rng.standard_normal(n),
        "ascending": np.arange(n),
        "descending": -np.arange(n),
        "constant": np.zeros(n),
        "few values": rng.integers(-2, 3, n),
        "ends": np.where(np.arange(n) > n - 3, 9.0, rng.standard_normal(n)),
    }[shape].astype(np.float32)
    x[x == 0] = np.where(np.arange(n)[x == 0] % 2, 0.0, -0.0)
    ids, _ = sampler(n, top_k=k).candidates(x)
    assert ids.tolist() == np.lexsort((np.arange(n), -x))[:k].tolist()


@pytest.mark.parametrize("spread", [0.3, 2.0, 9.0])
@pytest.mark.parametrize("top_p", [0.1, 0.7, 0.97, 0.9999])
def test_top_p_over_a_large_vocabulary(spread: float, top_p: float) -> None:
    x = (np.random.default_rng(5).standard_normal(60000) * spread).astype(np.float32)
    ids, probs = sampler(len(x), top_p=top_p).candidates(x)
    q = softmax(x)
    order = np.argsort(-q, kind="stable")
    n = int(np.argmax(np.cumsum(q[order]) >= top_p)) + 1
    assert ids.tolist() == order[:n].tolist()
    np.testing.assert_allclose(probs, q[ids] / q[ids].sum(), rtol=1e-5)


# ---- penalties and DRY -------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 24), max_size=300),
    st.sampled_from([-1, 0, 1, 2, 7, 64, 200]),
    st.sampled_from([0.7, 1.0, 1.3]),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([0.0, -0.5, 0.75]),
)
def test_penalties_count_the_last_tokens(
    history: list[int], last_n: int, repeat: float, frequency: float, presence: float
) -> None:
    x = np.random.default_rng(3).standard_normal(25).astype(np.float32)
    params = {
        "repeat_last_n": last_n,
        "repeat_penalty": repeat,
        "frequency_penalty": frequency,
        "presence_penalty": presence,
        "logit_bias": {4: 1.5, 9: -2.0},
    }
    s = sampler(25, history[: len(history) // 2], **params)
    for token in history[len(history) // 2 :]:
        s.accept(token)
    assert_same(s.candidates(x), chain(adjusted(x, history, params), OFF))


def test_history_of_many_distinct_tokens() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal(9000).astype(np.float32)
    history = rng.integers(0, 9000, 12000).tolist()
    for last_n in (-1, 5000):
        params = {"repeat_last_n": last_n, "presence_penalty": 0.5, "frequency_penalty": 0.125}
        assert_same(sampler(9000, history, **params).candidates(x), chain(adjusted(x, history, params), OFF))


def dry_penalties(history: list[int], breakers: list[list[int]], p: dict[str, Any]) -> dict[int, float]:
    """DRY by its definition: compare the end of the text with every earlier position, token by token."""
    last_n, allowed = p["dry_penalty_last_n"], p["dry_allowed_length"]
    text = history if last_n < 0 else history[len(history) - min(last_n, len(history)) :]
    if len(text) <= allowed:
        return {}
    limit = len(text)
    for start in range(len(text) - 1, -1, -1):
        found = [len(b) for b in breakers if text[start : start + len(b)] == b]
        if found:
            limit = len(text) - start - max(found)
            break
    if limit < allowed:
        return {}
    longest: dict[int, int] = {}
    for end in range(1, len(text)):  # the token at `end` followed a copy of the end of the text
        n = 0
        while n < end and text[end - 1 - n] == text[-1 - n]:
            n += 1
        n = min(n, limit)
        if n >= allowed:
            longest[text[end]] = max(longest.get(text[end], 0), n)
    single = {b[0] for b in breakers if len(b) == 1}
    return {
        token: p["dry_multiplier"] * p["dry_base"] ** (n - allowed)
        for token, n in longest.items()
        if token not in single
    }


class Letters:
    """A vocabulary of letters and a few pairs of them."""

    pieces = ("a", "b", "c", "d", "ab", "bc", "cd", "\n")
    n_vocab = len(pieces)

    def token_bytes(self, token: int) -> bytes:
        return self.pieces[token].encode()

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [self.pieces.index(c) for c in text]


def test_breakers_across_tokens() -> None:
    vocab = Letters()
    # "bc" inside "bc"; "b" and "ab" begin it, and "c" must follow
    assert dry_breakers(vocab, ("bc",)) == [(1, (2,)), (4, (2,)), (5, ())]
    assert dry_breakers(vocab, ("abc",)) == [(0, (1, 2)), (4, (2,))]
    assert dry_breakers(vocab, ()) == []


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from([0, 0, 1, 1, 2, 4, 5, 7]), max_size=60),
    st.sampled_from([(), ("\n",), ("bc",), ("abc", "\n"), ("d",)]),
    st.sampled_from([-1, 0, 5, 20]),
    st.integers(0, 4),
)
def test_dry_follows_its_definition(history: list[int], texts: tuple[str, ...], last_n: int, allowed: int) -> None:
    params = {
        "dry_multiplier": 0.5,
        "dry_base": 1.25,
        "dry_penalty_last_n": last_n,
        "dry_allowed_length": allowed,
    }
    vocab = Letters()
    breakers = [[head, *tail] for head, tail in dry_breakers(vocab, texts)]
    x = np.random.default_rng(8).standard_normal(8).astype(np.float32)
    expected = x.astype(np.float64)
    if last_n != 0:
        for token, penalty in dry_penalties(history, breakers, params).items():
            expected[token] -= penalty
    s = Sampler(SamplingParams(**OFF, **params, dry_sequence_breakers=texts), 8, vocab, history)
    assert_same(s.candidates(x), chain(expected, OFF))


def test_dry_on_a_long_repetition_stays_finite() -> None:
    s = sampler(8, [1, 2, 3, 4] * 2000, dry_multiplier=1.0, dry_base=3.0, dry_sequence_breakers=())
    x = np.zeros(8, np.float32)
    ids, probs = s.candidates(x)
    assert 1 not in ids[:7]
    assert np.isfinite(probs).all()
    assert s.sample(x) != 1


def test_dry_wants_a_tokenizer_for_its_breakers() -> None:
    with pytest.raises(ValueError, match="tokenizer"):
        sampler(8, dry_multiplier=1.0)


# ---- drawing -----------------------------------------------------------------------------------------------


def philox(seed: int, counter: tuple[int, int, int, int]) -> list[int]:
    """Philox4x32-10 as its paper defines it."""
    m = 0xFFFFFFFF
    k = [seed & m, seed >> 32]
    c = list(counter)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & m, (a >> 32) ^ c[3] ^ k[1], a & m]
        k = [(k[0] + 0x9E3779B9) & m, (k[1] + 0xBB67AE85) & m]
    return c


def test_philox_known_answers() -> None:
    """From the authors' Random123 (kat_vectors): the Python twin is right; the next test is C's."""
    assert philox(0, (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox(0x299F31D0A4093822, pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32, 2**64 - 1])
def test_draws_are_the_inverse_of_the_cumulative_distribution(seed: int) -> None:
    x = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    s = sampler(500, seed=seed, top_k=50)
    ids, probs = s.candidates(x)
    cumulative = np.cumsum(probs.astype(np.float64))
    for k in range(50):
        hi, lo, _, _ = philox(seed, (k, 0, 0, 0))
        u = ((hi << 32 | lo) >> 11) * 2.0**-53
        at = int(np.searchsorted(cumulative, u, side="right"))
        assert np.abs(cumulative - u).min() > 1e-6
        assert s.sample(x) == ids[at]


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """The statistic in standard deviations above its mean (Wilson and Hilferty 1931), small cells merged."""
    big = expected >= 5
    if (~big).any():
        counts = np.append(counts[big], counts[~big].sum())
        expected = np.append(expected[big], expected[~big].sum())
    df = len(expected) - 1
    statistic = float(((counts - expected) ** 2 / np.maximum(expected, 1e-9)).sum())
    return ((statistic / df) ** (1 / 3) - (1 - 2 / (9 * df))) / math.sqrt(2 / (9 * df))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
        {"temperature": 1.5},
        {"typical_p": 0.8},
        {"mirostat": 2, "mirostat_eta": 0.0, "mirostat_tau": 1.5},
        {"mirostat": 1, "mirostat_eta": 0.0, "mirostat_tau": 2.0},
    ],
    ids=str,
)
def test_draws_have_the_distribution(params: dict[str, Any]) -> None:
    n, draws = 60, 40000
    x = (np.random.default_rng(4).standard_normal(n) * 1.5).astype(np.float32)
    s = sampler(n, **{**params, "seed": 99})
    ids, probs = s.candidates(x)
    p = ffi.from_buffer("float[]", x)
    counts = np.bincount([s.sample(p) for _ in range(draws)], minlength=n)
    assert counts[[i for i in range(n) if i not in ids]].sum() == 0
    assert chi_square(counts[ids], probs.astype(np.float64) * draws) < 4


def test_each_seed_is_a_stream_of_its_own() -> None:
    """The first draws of consecutive seeds are as random as the draws of one seed."""
    x = np.zeros(16, np.float32)
    counts = np.bincount([sampler(16, seed=seed).sample(x) for seed in range(4000)], minlength=16)
    assert chi_square(counts, np.full(16, 250.0)) < 4


def test_xtc_happens_with_its_probability() -> None:
    x = np.log(np.array([0.4, 0.3, 0.2, 0.06, 0.04])).astype(np.float32)
    s = sampler(5, xtc_probability=0.3, xtc_threshold=0.1, seed=5)
    draws, excluded = 6000, 0
    counts = np.zeros((2, 5))
    for _ in range(draws):
        ids, _ = s.candidates(x)
        happened = len(ids) == 3
        assert ids.tolist() == ([2, 3, 4] if happened else [0, 1, 2, 3, 4])
        excluded += happened
        counts[int(happened), s.sample(x)] += 1
    assert abs(excluded - 0.3 * draws) < 4 * math.sqrt(draws * 0.3 * 0.7)
    assert chi_square(counts[0], np.array([0.4, 0.3, 0.2, 0.06, 0.04]) * counts[0].sum()) < 4
    assert chi_square(counts[1][2:], np.array([0.2, 0.06, 0.04]) / 0.3 * counts[1].sum()) < 4


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_follows_its_papers_update(version: int) -> None:
    n, tau, eta, t = 300, 2.5, 0.3, 0.9
    x = (np.random.default_rng(6).standard_normal(n) * 2).astype(np.float32)
    s = sampler(n, mirostat=version, mirostat_tau=tau, mirostat_eta=eta, temperature=t)
    p = np.sort(softmax(x / np.float32(t)))[::-1]
    order = np.argsort(-x, kind="stable")
    mu, surprises = 2 * tau, []
    for _ in range(400):
        if version == 1:
            i = np.arange(99)
            ti, bi = np.log((i + 2) / (i + 1)), np.log(p[i] / p[i + 1])
            zipf = (ti * bi).sum() / (ti * ti).sum()
            e = zipf - 1
            k = min(max(int(((e * 2**mu) / (1 - n**-e)) ** (1 / zipf)), 1), n)
        else:
            k = max(int((-np.log2(p) <= mu).sum()), 1)
        ids, probs = s.candidates(x)
        assert ids.tolist() == order[:k].tolist()
        token = s.sample(x)
        surprise = -math.log2(float(probs[ids.tolist().index(token)]))
        surprises.append(surprise)
        mu -= eta * (surprise - tau)
    assert abs(np.mean(surprises[50:]) - tau) < 0.2


def test_same_seed_same_text_whatever_runs_beside_it() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 1000)).astype(np.float32) * 2
    params = {"temperature": 1.0, "repeat_penalty": 1.2, "xtc_probability": 0.5, "seed": 77}

    def step(s: Sampler, row: np.ndarray) -> int:
        token = s.sample(row)
        s.accept(token)
        return token

    alone = sampler(1000, **params)
    text = [step(alone, row) for row in rows]
    one, two, other = (
        sampler(1000, **params),
        sampler(1000, **params),
        sampler(1000, **{**params, "seed": 78}),
    )
    together = [(step(one, row), step(other, row), step(two, row)) for row in rows]
    assert [t[0] for t in together] == text
    assert [t[2] for t in together] == text
    assert [t[1] for t in together] != text


def test_random_seed_is_reported_and_repeats_the_text() -> None:
    x = np.zeros(1000, np.float32)
    first = Sampler(SamplingParams(temperature=1.0), 1000)
    again = Sampler(SamplingParams(temperature=1.0, seed=first.seed), 1000)
    assert [first.sample(x) for _ in range(20)] == [again.sample(x) for _ in range(20)]
    assert len({Sampler(SamplingParams(), 10).seed for _ in range(8)}) > 1


# ---- greedy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -1.0])
@pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 1000, 4097])
def test_greedy_takes_the_lowest_id_of_the_best(n: int, temperature: float) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        x = rng.integers(-3, 4, n).astype(np.float32)
        s = sampler(n, temperature=temperature, top_k=40, top_p=0.5, min_p=0.1)
        assert s.sample(x) == int(np.argmax(x))
        assert s.candidates(x)[0].tolist() == [int(np.argmax(x))]


def test_greedy_follows_bias_and_penalties() -> None:
    x = np.array([5.0, 4.0, 3.0, 2.0], np.float32)
    assert sampler(4, temperature=0, logit_bias={2: 3.0}).sample(x) == 2
    assert sampler(4, temperature=0, logit_bias={0: -INF}).sample(x) == 1
    s = sampler(4, temperature=0, presence_penalty=1.5)
    drawn = []
    for _ in range(4):
        drawn.append(s.sample(x))
        s.accept(drawn[-1])
    assert drawn == [0, 1, 0, 0]


# ---- edges -------------------------------------------------------------------------------------------------

EVERY_STAGE: list[dict[str, Any]] = [
    {"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"typical_p": 0.5},
    {"top_n_sigma": 1.0}, {"xtc_probability": 1.0, "xtc_threshold": 0.01}, {"dynatemp_range": 0.5},
    {"mirostat": 1}, {"mirostat": 2}, {"repeat_penalty": 1.1}, {"logit_bias": {1: 1.0}},
    {"dry_multiplier": 1.0, "dry_sequence_breakers": ()}, {"temperature": 1e-30}, {"temperature": 1e30},
    {"top_k": 5, "top_p": 0.0, "typical_p": 0.0, "min_p": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("params", EVERY_STAGE, ids=str)
def test_no_logit_at_all_is_an_error(params: dict[str, Any]) -> None:
    for x in (np.full(100, -INF, np.float32), np.full(100, np.nan, np.float32)):
        s = sampler(100, [1, 2, 3, 1, 2, 3, 1, 2], **params)
        for call in (s.sample, s.candidates, lambda y, s=s: s.logprobs(y, 0, 2)):
            with pytest.raises(SamplingError, match="no token"):
                call(x)


@pytest.mark.parametrize("params", EVERY_STAGE, ids=str)
@pytest.mark.parametrize("n", [1, 2, 100])
def test_nan_and_infinities_are_survived(n: int, params: dict[str, Any]) -> None:
    rng = np.random.default_rng(n)
    if n == 1:
        params = {k: v for k, v in params.items() if k != "logit_bias"}
    for special in ([np.nan], [-INF], [INF], [np.nan, -INF, INF], [3.4e38, -3.4e38], [1e-45, -0.0]):
        x = rng.standard_normal(n).astype(np.float32)
        x[rng.integers(0, n, n // 3)] = rng.choice(special, n // 3)
        x[-1] = 0.5
        history = rng.integers(0, n, 30).tolist()
        s = sampler(n, history, **params)
        ids, probs = s.candidates(x)
        assert np.isfinite(probs).all()
        assert abs(probs.sum() - 1) < 1e-4
        assert not np.isnan(x[ids]).any()
        assert (x[ids] > -INF).all()
        for _ in range(3):
            assert s.sample(x) in range(n)


def test_infinite_logits_share_the_probability() -> None:
    x = np.array([1.0, INF, 3.0, INF], np.float32)
    for params in ({}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"temperature": 0.5}):
        ids, probs = sampler(4, **params).candidates(x)
        assert ids[:2].tolist() == [1, 3]
        np.testing.assert_allclose(probs[:2], 0.5)
    assert sampler(4, temperature=0).sample(x) == 1


def test_logprobs_are_of_the_model() -> None:
    x = (np.random.default_rng(9).standard_normal(2000) * 3).astype(np.float32)
    expected = np.log(softmax(x))
    s = sampler(2000, [5, 6], top_k=3, temperature=0.2, repeat_penalty=2.0, logit_bias={7: 9.0}, logprobs=5)
    result = s.logprobs(x, 123)
    assert abs(result.token - expected[123]) < 1e-5
    best = np.argsort(-x, kind="stable")[:5]
    assert [t for t, _ in result.top] == best.tolist()
    np.testing.assert_allclose([v for _, v in result.top], expected[best], atol=1e-5)
    assert s.logprobs(x, 0, 0).top == []
    assert len(s.logprobs(x, 0, 10**6).top) == 2000
    x[3] = -INF
    assert s.logprobs(x, 3).token == -INF


def test_pointers_and_arrays_are_the_same() -> None:
    x = np.random.default_rng(1).standard_normal(64).astype(np.float32)
    a, b = sampler(64), sampler(64)
    pointer = ffi.cast("float *", x.ctypes.data)
    assert [a.sample(x) for _ in range(10)] == [b.sample(pointer) for _ in range(10)]
    strided = np.repeat(x, 2)[::2]
    assert not strided.flags.c_contiguous
    assert a.sample(strided) == b.sample(x)


def test_wrong_arguments() -> None:
    s = sampler(10)
    with pytest.raises(ValueError, match=r"float32 \[10\]"):
        s.sample(np.zeros(10))
    with pytest.raises(ValueError, match=r"float32 \[10\]"):
        s.sample(np.zeros(11, np.float32))
    for token in (-1, 10):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            s.accept(token)
        with pytest.raises(ValueError, match="outside the vocabulary"):
            sampler(10, [token], repeat_penalty=1.1)
    with pytest.raises(ValueError, match="outside the vocabulary of 10"):
        sampler(10, logit_bias={10: 1.0})
    with pytest.raises(ValueError, match="n_vocab"):
        sampler(0)


NAN = float("nan")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", NAN), ("temperature", INF), ("temperature", "hot"), ("temperature", 1e300),
        ("top_p", -0.1), ("top_p", 1.1), ("top_p", NAN), ("min_p", -0.1), ("min_p", 2), ("typical_p", -1),
        ("typical_p", 1.5), ("top_n_sigma", NAN), ("xtc_probability", -0.5), ("xtc_probability", 1.5),
        ("xtc_threshold", -0.1), ("dynatemp_range", -1), ("dynatemp_exponent", -1),
        ("dynatemp_exponent", INF),
        ("repeat_penalty", 0), ("repeat_penalty", -1), ("repeat_penalty", NAN), ("repeat_last_n", -2),
        ("repeat_last_n", 1.5), ("frequency_penalty", NAN), ("presence_penalty", INF), ("dry_multiplier", -1),
        ("dry_base", NAN), ("dry_allowed_length", -1), ("dry_penalty_last_n", -2), ("mirostat", 3),
        ("mirostat", -1), ("mirostat_tau", -1), ("mirostat_eta", NAN), ("seed", -1), ("seed", 2**64),
        ("seed", 1.5), ("top_k", 2**31), ("top_k", None), ("logprobs", -1), ("logit_bias", {-1: 1.0}),
        ("logit_bias", {"a": 1.0}), ("logit_bias", {1: NAN}), ("logit_bias", {1: INF}),
        ("logit_bias", {1: "x"}),
        ("dry_sequence_breakers", "ab"), ("dry_sequence_breakers", [""]), ("dry_sequence_breakers", [1]),
    ],
)  # fmt: skip
def test_parameters_are_checked(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        SamplingParams(**{name: value})


def test_parameters_are_frozen_and_comparable() -> None:
    bias = {3: 1.0}
    params = SamplingParams(logit_bias=bias, dry_sequence_breakers=["\n"])
    bias[4] = 2.0
    assert params.logit_bias == {3: 1.0}
    assert params == SamplingParams(logit_bias={3: 1.0}, dry_sequence_breakers=("\n",))
    with pytest.raises(AttributeError):
        params.top_k = 3  # type: ignore[misc]
    for extreme in (1e-30, 1e30):
        Sampler(SamplingParams(repeat_penalty=extreme), 4, prompt_ids=[1]).sample(np.ones(4, np.float32))


def test_c_refuses_what_it_cannot_use() -> None:
    good = {"temperature": 1, "top_p": 1, "typical_p": 1, "repeat_penalty": 1, "dry_base": 1.75}

    def new(n_vocab: int = 10, **change: Any) -> Any:
        state = lib.pl_sampler_new(ffi.new("pl_sampler_params *", {**good, **change}), n_vocab)
        if state != ffi.NULL:
            lib.pl_sampler_free(state)
        return state != ffi.NULL

    assert new()
    assert not new(0)
    assert not new(-5)
    assert lib.pl_sampler_new(ffi.NULL, 10) == ffi.NULL
    for name in ("temperature", "top_p", "min_p", "typical_p", "top_n_sigma", "repeat_penalty", "dry_base"):
        assert not new(**{name: NAN})
    for name, value in (
        ("mirostat", 3),
        ("repeat_last_n", -2),
        ("dry_last_n", -2),
        ("n_bias", 1),
        ("n_bias", -1),
    ):
        assert not new(**{name: value})
    ids, biases = ffi.new("int32_t[]", [10]), ffi.new("float[]", [1.0])
    assert not new(n_bias=1, bias_id=ids, bias=biases)
    dry = {"dry_multiplier": 1, "dry_last_n": -1, "n_breakers": 2}
    off = ffi.new("int32_t[]", [0, 0, 0])
    assert new(**dry, breaker_head=ffi.new("int32_t[]", [1, 2]), breaker_off=off)
    assert not new(**dry, breaker_head=ffi.new("int32_t[]", [2, 1]), breaker_off=off)
    assert not new(**dry, breaker_head=ffi.new("int32_t[]", [1, 10]), breaker_off=off)
    assert not new(**dry)
    state = lib.pl_sampler_new(ffi.new("pl_sampler_params *", good), 10)
    x = ffi.new("float[10]")
    assert lib.pl_sampler_sample(ffi.NULL, x) == lib.PL_E_ARG
    assert lib.pl_sampler_sample(state, ffi.NULL) == lib.PL_E_ARG
    assert lib.pl_sampler_accept(state, ffi.NULL, 1) == lib.PL_E_ARG
    assert lib.pl_sampler_candidates(state, x, 1, ffi.NULL, ffi.NULL) == lib.PL_E_ARG
    assert lib.pl_sampler_logprobs(state, x, 10, 0, ffi.NULL, ffi.NULL, ffi.NULL) == lib.PL_E_ARG
    lib.pl_sampler_free(state)
    lib.pl_sampler_free(ffi.NULL)
