"""Sampling: from a row of logits to the next token.

`SamplingParams` holds what the user chose; a `Sampler` belongs to one sequence and makes one C call per token
(csrc/sample/). The stages, their order and their meaning are llama.cpp's default chain:

    logit bias, penalties, DRY, top-n-sigma, top-k, typical-p, top-p, min-p, XTC, temperature, draw

and with mirostat: logit bias, temperature, mirostat, draw. A draw uses random numbers that depend on the seed
and on how many tokens the sampler has drawn before, and on nothing else (Philox4x32-10, Salmon et al. 2011):
the same seed gives the same text whatever else runs beside it.
"""

from __future__ import annotations

import math
import numbers
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ._lib import ffi, lib
from .errors import SamplingError

_FLOAT_MAX = 3.4028234663852886e38
_BREAKER_BYTES = 40
_BREAKER_TOKENS = 20


class BreakerVocab(Protocol):
    """What DRY needs of a tokenizer to find its sequence breakers among the tokens."""

    @property
    def n_vocab(self) -> int: ...

    def token_bytes(self, token: int, /) -> bytes: ...

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...


# name: (smallest, largest) allowed; NaN and infinities never are
_FLOATS: dict[str, tuple[float, float]] = {
    "temperature": (-_FLOAT_MAX, _FLOAT_MAX),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "top_n_sigma": (-_FLOAT_MAX, _FLOAT_MAX),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "dynatemp_range": (0.0, _FLOAT_MAX),
    "dynatemp_exponent": (0.0, _FLOAT_MAX),
    "repeat_penalty": (1e-30, 1e30),
    "frequency_penalty": (-_FLOAT_MAX, _FLOAT_MAX),
    "presence_penalty": (-_FLOAT_MAX, _FLOAT_MAX),
    "dry_multiplier": (0.0, _FLOAT_MAX),
    "dry_base": (0.0, _FLOAT_MAX),
    "mirostat_tau": (0.0, _FLOAT_MAX),
    "mirostat_eta": (0.0, _FLOAT_MAX),
}
_INTS: dict[str, tuple[int, int]] = {
    "top_k": (-(2**31), 2**31 - 1),
    "repeat_last_n": (-1, 2**31 - 1),
    "dry_allowed_length": (0, 2**31 - 1),
    "dry_penalty_last_n": (-1, 2**31 - 1),
    "mirostat": (0, 2),
    "logprobs": (0, 2**31 - 1),
}


def _allowed(lo: float, hi: float) -> str:
    """The range in words: "from 0 to 1", "0 or more", "finite"."""
    if hi < 1e30:
        return f"from {lo:g} to {hi:g}" if hi < 2**31 - 1 else f"{lo:g} or more"
    return "finite" if lo < 0 else "finite and more than 0" if lo > 0 else "finite and 0 or more"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; every default is llama.cpp's. Raises ValueError for a value out of range.

    temperature: divides the logits; 0 or less takes the most probable token (the lowest id of equals), after
        bias and penalties.
    top_k: keep the k most probable tokens; 0 or less keeps all.
    top_p: keep the most probable tokens whose probabilities reach this sum; 1 keeps all.
    min_p: keep tokens at least this many times as probable as the best; 0 keeps all.
    typical_p: keep the tokens whose surprise is nearest to the entropy, to this sum; 1 keeps all.
    top_n_sigma: keep tokens within this many standard deviations of the best logit; 0 or less keeps all.
    xtc_probability, xtc_threshold: with that probability, drop all but the least of the tokens that have at
        least the threshold's probability; a threshold over 0.5 never drops.
    dynatemp_range, dynatemp_exponent: temperature from `temperature - range` to `temperature + range` as the
        entropy grows; with a range, temperature 0 is not greedy.
    repeat_penalty, frequency_penalty, presence_penalty, repeat_last_n: penalties on tokens among the last n
        of the prompt and the answer; n of -1 is all of them, 0 none.
    dry_multiplier, dry_base, dry_allowed_length, dry_penalty_last_n, dry_sequence_breakers: penalty of
        `multiplier * base ** (length - allowed_length)` on a token that would extend a repetition of that
        length; multiplier 0 is off, last_n of -1 looks at the whole text. Breakers end what is compared.
    mirostat, mirostat_tau, mirostat_eta: version 1 or 2 steers towards a surprise of tau bits at rate eta, in
        place of every filter and penalty; 0 is off.
    seed: 0 to 2**64 - 1, or None for a random one (`Sampler.seed` says which).
    logit_bias: token id -> number added to its logit; -inf bans the token.
    logprobs: how many of the most probable tokens to report with each token.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _FLOATS.items():
            value = getattr(self, name)
            if not isinstance(value, numbers.Real):
                raise ValueError(f"{name} must be a number, not {value!r}")
            if not low <= float(value) <= high:
                raise ValueError(f"{name} must be {_allowed(low, high)}, not {value}")
        for name, (least, most) in _INTS.items():
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral):
                raise ValueError(f"{name} must be an integer, not {value!r}")
            if not least <= int(value) <= most:
                raise ValueError(f"{name} must be {_allowed(least, most)}, not {value}")
        if self.seed is not None and not isinstance(self.seed, numbers.Integral):
            raise ValueError(f"seed must be an integer or None, not {self.seed!r}")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be from 0 to 2**64 - 1, or None for a random one, not {self.seed}")
        breakers = self.dry_sequence_breakers
        if isinstance(breakers, str) or not all(isinstance(b, str) and b for b in breakers):
            raise ValueError(f"dry_sequence_breakers must be a list of nonempty texts, not {breakers!r}")
        object.__setattr__(self, "dry_sequence_breakers", tuple(breakers))
        bias: dict[int, float] = {}
        for token, value in self.logit_bias.items():
            if not isinstance(token, numbers.Integral) or token < 0:
                raise ValueError(f"logit_bias: {token!r} is not a token id")
            if not isinstance(value, numbers.Real) or not -math.inf <= float(value) <= _FLOAT_MAX:
                raise ValueError(f"logit_bias of token {token} must be finite or -inf, not {value!r}")
            bias[int(token)] = max(float(value), -_FLOAT_MAX) if value > -math.inf else -math.inf
        object.__setattr__(self, "logit_bias", bias)

    @property
    def uses_dry(self) -> bool:
        """Whether DRY changes anything with these parameters."""
        wanted = self.dry_multiplier > 0 and self.dry_base >= 1 and self.dry_penalty_last_n != 0
        return wanted and self.mirostat == 0


class TopLogprobs(NamedTuple):
    """Log probabilities (natural) of the model itself, before bias, penalties, filters and temperature."""

    token: float
    top: list[tuple[int, float]]


_Breakers = list[tuple[int, tuple[int, ...]]]
_breakers_of: WeakKeyDictionary[Any, dict[tuple[str, ...], _Breakers]] = WeakKeyDictionary()


def dry_breakers(tokenizer: BreakerVocab, breakers: Sequence[str]) -> _Breakers:
    """Every way the tokens can spell each breaker: (head token, the tokens that follow it), sorted.

    A token that contains the breaker is a head with nothing to follow; a token whose end is a beginning of
    the breaker is a head followed by the tokens of the rest (at most 20). A breaker counts up to 40 bytes.
    Heads that end inside a character of the breaker are left out.
    """
    key = tuple(breakers)
    known = _breakers_of.setdefault(tokenizer, {})
    if key in known:
        return known[key]
    pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.n_vocab)]
    found: set[tuple[int, tuple[int, ...]]] = set()
    for text in key:
        whole = text.encode()
        if len(whole) > _BREAKER_BYTES:
            whole = whole[:_BREAKER_BYTES].decode(errors="ignore").encode()
        starts = []
        for i in range(1, len(text)):
            start, rest = text[:i].encode(), whole[len(text[:i].encode()) :]
            if rest:
                tail = tokenizer.encode(rest.decode(), add_special=False, parse_special=False)
                starts.append((start, tuple(tail[:_BREAKER_TOKENS])))
        for token, piece in enumerate(pieces):
            if whole in piece:
                found.add((token, ()))
                continue
            for start, tail_tokens in starts:
                if piece.endswith(start):
                    found.add((token, tail_tokens))
    known[key] = sorted(found)
    return known[key]


class Sampler:
    """The sampling state of one sequence: random numbers, history, mirostat's mu; not thread-safe.

    params: see SamplingParams. n_vocab: length of a row of logits. tokenizer: needed by DRY with sequence
    breakers. prompt_ids: tokens that penalties and DRY see before the first one sampled.
    Raises ValueError when an id is outside the vocabulary, or DRY has breakers and no tokenizer.
    """

    seed: int  # the seed in use, chosen at random when the parameters have none
    state: Any  # pl_sampler *

    def __init__(
        self,
        params: SamplingParams,
        n_vocab: int,
        tokenizer: BreakerVocab | None = None,
        prompt_ids: Sequence[int] = (),
    ) -> None:
        if not 0 < n_vocab < 2**31:
            raise ValueError(f"n_vocab must be positive and below 2**31, not {n_vocab}")
        for token in params.logit_bias:
            if token >= n_vocab:
                raise ValueError(f"logit_bias: token {token} is outside the vocabulary of {n_vocab}")
        self.params = params
        self.n_vocab = n_vocab
        self.seed = params.seed if params.seed is not None else secrets.randbits(32)
        breakers: _Breakers = []
        if params.uses_dry and params.dry_sequence_breakers:
            if tokenizer is None:
                raise ValueError("DRY needs a tokenizer to find its breakers; or set dry_sequence_breakers=()")
            breakers = [b for b in dry_breakers(tokenizer, params.dry_sequence_breakers) if b[0] < n_vocab]
        self.state = _new(params, n_vocab, self.seed, breakers)
        self._out, self._one = ffi.new("float *"), ffi.new("int32_t *")
        if len(prompt_ids):
            self._accept(prompt_ids)

    def sample(self, logits: Any) -> int:
        """Draw a token. logits: cffi pointer to n_vocab floats, or float32 array [n_vocab]; only read.

        Does not accept the token: call accept(). Raises SamplingError when every logit is -inf or NaN.
        """
        token: int = lib.pl_sampler_sample(self.state, self._pointer(logits))
        return token if token >= 0 else checked(token)

    def accept(self, token: int) -> None:
        """Append a token to the history. Raises ValueError when it is outside the vocabulary."""
        self._one[0] = int(token)
        if (result := lib.pl_sampler_accept(self.state, self._one, 1)) < 0:
            checked(result)

    def candidates(self, logits: Any) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """What the next sample() draws from: ids [n] and their probabilities [n], the most probable first.

        Changes nothing: a sample() that follows draws from exactly these. Raises SamplingError as sample().
        """
        ids = np.empty(self.n_vocab, np.int32)
        probs = np.empty(self.n_vocab, np.float32)
        n = checked(
            lib.pl_sampler_candidates(
                self.state,
                self._pointer(logits),
                self.n_vocab,
                ffi.from_buffer("int32_t[]", ids, require_writable=True),
                ffi.from_buffer("float[]", probs, require_writable=True),
            )
        )
        return ids[:n].copy(), probs[:n].copy()

    def logprobs(self, logits: Any, token: int, n: int | None = None) -> TopLogprobs:
        """Log softmax of the logits as they are: of `token`, and of the n best (default: params.logprobs)."""
        n = min(self.params.logprobs if n is None else n, self.n_vocab)
        ids, values = ffi.new("int32_t[]", max(n, 1)), ffi.new("float[]", max(n, 1))
        found = checked(lib.pl_sampler_logprobs(self.state, self._pointer(logits), token, n, ids, values, self._out))
        return TopLogprobs(self._out[0], [(ids[i], values[i]) for i in range(found)])

    def _accept(self, tokens: Sequence[int]) -> None:
        ids = ffi.new("int32_t[]", [int(t) for t in tokens])
        checked(lib.pl_sampler_accept(self.state, ids, len(tokens)))

    def _pointer(self, logits: Any) -> Any:
        if not isinstance(logits, np.ndarray):
            return logits
        if logits.dtype != np.float32 or logits.shape != (self.n_vocab,):
            found = f"{logits.dtype} {list(logits.shape)}"
            raise ValueError(f"logits must be float32 [{self.n_vocab}], not {found}")
        return ffi.from_buffer("float[]", np.ascontiguousarray(logits))


def _new(params: SamplingParams, n_vocab: int, seed: int, breakers: _Breakers) -> Any:
    """A pl_sampler that frees itself."""
    c = ffi.new("pl_sampler_params *")
    for name in _FLOATS:
        setattr(c, name, float(getattr(params, name)))
    c.top_k, c.repeat_last_n, c.dry_last_n = params.top_k, params.repeat_last_n, params.dry_penalty_last_n
    c.dry_allowed_length, c.mirostat, c.seed = params.dry_allowed_length, params.mirostat, seed
    bias_id = ffi.new("int32_t[]", list(params.logit_bias))
    bias = ffi.new("float[]", list(params.logit_bias.values()))
    c.n_bias, c.bias_id, c.bias = len(params.logit_bias), bias_id, bias
    offsets: list[int] = [0]
    tails: list[int] = []
    for _, tail in breakers:
        tails += tail
        offsets.append(len(tails))
    head = ffi.new("int32_t[]", [h for h, _ in breakers])
    off = ffi.new("int32_t[]", offsets)
    tail_ids = ffi.new("int32_t[]", tails)
    c.n_breakers, c.breaker_head, c.breaker_off, c.breaker_tail = len(breakers), head, off, tail_ids
    state = lib.pl_sampler_new(c, n_vocab)
    if state == ffi.NULL:
        raise MemoryError("no memory for the sampler")
    return ffi.gc(state, lib.pl_sampler_free)


def checked(result: int) -> int:
    """`result`, unless it is an error of the sampler: SamplingError, MemoryError or ValueError."""
    if result >= 0:
        return result
    if result == lib.PL_E_LOGITS:
        raise SamplingError("no token can be sampled: every logit is -inf or NaN (banned, or broken weights)")
    if result == lib.PL_E_MEM:
        raise MemoryError("no memory to sample")
    raise ValueError("a token id is outside the vocabulary")
