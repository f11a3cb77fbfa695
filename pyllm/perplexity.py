"""Perplexity of a text, and how far a model's probabilities are from a base's, as llama-perplexity measures them.

The text's tokens are cut into chunks of n_ctx that do not overlap. Each is run from an empty cache, with BOS in its
first place where the vocabulary wants one, and the tokens of its second half but the first are scored, so that each
has at least n_ctx / 2 before it: perplexity is exp of the mean of their negative log probabilities.

A base's probabilities are kept in a file of llama.cpp's format (all little endian):

    "_logits_", uint32 n_ctx, int32 n_vocab, int32 n_chunk, int32 tokens[n_chunk][n_ctx]
    for each scored position: float32 scale, float32 least, uint16 code[n_vocab rounded up to even]

where a token's log probability is least + scale * code. What is more than 16 below the best has code 0.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import PerplexityError

if TYPE_CHECKING:
    from .llm import LLM
    from .tokenizer import Tokenizer

Logits = npt.NDArray[np.float32]  # [rows, n_vocab]
Logprobs = npt.NDArray[np.floating[Any]]  # [rows, n_vocab]
Float64s = npt.NDArray[np.float64]
Packed = npt.NDArray[np.uint16]  # [rows, 4 + n_vocab rounded up to even]

DEFAULT_N_CTX: Final = 512
MAGIC: Final = b"_logits_"
#: log probabilities below this do not count in a divergence from a file: there they are all the same
LEAST: Final = -16.0
#: numbers that are worked on at once, so that they stay in the CPU's cache
_BLOCK: Final = 1 << 18


# ---- text -> chunks -> logits ---------------------------------------------------------------------------------


def whole_chunks(ids: Sequence[int], n_ctx: int, limit: int | None = None) -> npt.NDArray[np.int32]:
    """The tokens as [n_chunk, n_ctx], at most `limit` chunks; what is left over is left out. PerplexityError if there
    is no whole one, or if none of its tokens would be scored."""
    if n_ctx < 3:
        raise PerplexityError(f"a chunk of {n_ctx} tokens has none to score: take a larger n_ctx (-c)")
    count = len(ids) // n_ctx
    if count == 0:
        raise PerplexityError(
            f"the text has {len(ids)} tokens and a chunk {n_ctx}: take a longer text or a smaller n_ctx (-c)"
        )
    if limit is not None:
        count = min(count, limit)
    return np.array(ids[: count * n_ctx], np.int32).reshape(count, n_ctx)


def with_bos(tokenizer: Tokenizer, chunk: Sequence[int] | npt.NDArray[np.integer[Any]]) -> list[int]:
    """The chunk as it is run: with BOS for its first token where the vocabulary wants BOS."""
    ids = [int(i) for i in chunk]
    if tokenizer.add_bos and tokenizer.bos_id is not None:
        ids[0] = tokenizer.bos_id
    return ids


def score(llm: LLM, chunk: Sequence[int]) -> Logits:
    """[n_ctx - n_ctx // 2 - 1, n_vocab]: logits for the tokens after the first n_ctx // 2 + 1."""
    return llm.logits(chunk, first=len(chunk) // 2)[:-1]


def targets(chunk: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """The tokens that score() predicts, row by row."""
    return np.array(chunk[len(chunk) // 2 + 1 :], np.int64)


# ---- logits -> statistics -------------------------------------------------------------------------------------


def log_sum_exp(logits: Logits) -> Float64s:
    """[rows]: what to take off each row's logits to have natural log probabilities. float32 but for the sum."""
    most = logits.max(axis=1)
    total = np.exp(logits - most[:, None]).sum(axis=1, dtype=np.float64)
    result: Float64s = most + np.log(total)
    return result


def log_softmax(logits: Logits) -> Float64s:
    """Natural log probabilities [rows, n_vocab], all in float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def kl_divergence(base: Logprobs, other: Logprobs, least: float = -np.inf) -> Float64s:
    """[rows]: KL divergence of `other` from `base`, in nats, over tokens whose log probability in the base is above
    `least`."""
    term = base - other
    term *= np.exp(base)
    if least > -np.inf:
        term *= base > least
    result: Float64s = term.sum(axis=1, dtype=np.float64)
    return result


class Value(NamedTuple):
    """A mean, and its standard error."""

    value: float
    error: float


def _mean(x: npt.NDArray[Any]) -> Value:
    return Value(float(x.mean()), float(np.sqrt(x.var() / max(len(x) - 1, 1))))


def _exp(x: Value) -> Value:
    return Value(float(np.exp(x.value)), float(np.exp(x.value)) * x.error)


def _empty() -> Float64s:
    return np.empty(0)


@dataclass(frozen=True)
class Scores:
    """What was found at each scored position, all [n]; without a base the last four are empty.

    nll, base_nll: negative log probability of the token that follows, in nats. kl: divergence from the base.
    p_diff: that token's probability less its probability in the base. same_top: both find the same token most
    probable. Statistics over them follow llama-perplexity; errors are standard errors of the mean.
    """

    nll: Float64s = field(default_factory=_empty)
    base_nll: Float64s = field(default_factory=_empty)
    kl: Float64s = field(default_factory=_empty)
    p_diff: Float64s = field(default_factory=_empty)
    same_top: Float64s = field(default_factory=_empty)

    def __add__(self, other: Scores) -> Scores:
        """The positions of both."""
        names = [f.name for f in fields(self)]
        return Scores(**{n: np.concatenate([getattr(self, n), getattr(other, n)]) for n in names})

    def __len__(self) -> int:
        return len(self.nll)

    @property
    def mean_nll(self) -> Value:
        return _mean(self.nll)

    @property
    def perplexity(self) -> Value:
        return _exp(self.mean_nll)

    @property
    def base_perplexity(self) -> Value:
        return _exp(_mean(self.base_nll))

    @property
    def correlation(self) -> float:
        """Of the log probabilities of the tokens that follow; NaN where all are the same."""
        a, b = self.nll - self.nll.mean(), self.base_nll - self.base_nll.mean()
        scale = float(np.sqrt((a @ a) * (b @ b)))
        return float(a @ b) / scale if scale else float("nan")

    @property
    def log_ratio(self) -> Value:
        """Of the perplexity to the base's. The error counts that both are of the same text: it is that of the mean
        difference."""
        return _mean(self.nll - self.base_nll)

    @property
    def ratio(self) -> Value:
        return _exp(self.log_ratio)

    @property
    def difference(self) -> Value:
        """Of the perplexity and the base's."""
        own, base = self.perplexity, self.base_perplexity
        spread = own.value * (self.nll - self.nll.mean()) - base.value * (self.base_nll - self.base_nll.mean())
        return Value(own.value - base.value, _mean(spread).error)

    @property
    def mean_kl(self) -> Value:
        return _mean(self.kl)

    @property
    def mean_p_diff(self) -> Value:
        return _mean(self.p_diff)

    @property
    def rms_p_diff(self) -> Value:
        square = _mean(self.p_diff**2)
        rms = float(np.sqrt(square.value))
        return Value(rms, 0.5 * square.error / rms if rms else 0.0)

    @property
    def same_top_share(self) -> Value:
        return _mean(self.same_top)


def scores(logits: Logits, wanted: npt.NDArray[np.int64], base: Callable[[slice], Logprobs] | None = None) -> Scores:
    """Scores of rows of logits, whose next tokens are `wanted`. base: gives log probabilities of some of the rows;
    if they are float32, tokens below LEAST are left out of the divergence."""
    total = Scores()
    step = max(_BLOCK // logits.shape[1], 1)
    for at in range(0, len(wanted), step):
        rows = slice(at, min(at + step, len(wanted)))
        total += _scores(logits[rows], wanted[rows], None if base is None else base(rows))
    return total


def _scores(logits: Logits, wanted: npt.NDArray[np.int64], base: Logprobs | None) -> Scores:
    index = np.arange(len(wanted))
    norm = log_sum_exp(logits)
    nll = norm - logits[index, wanted]
    if base is None:
        return Scores(nll)
    if base.dtype == np.float64:
        mine: Logprobs = log_softmax(logits)
        least = -np.inf
    else:
        mine = logits - norm.astype(np.float32)[:, None]
        least = LEAST
    base_nll = -base[index, wanted].astype(np.float64)
    same = (mine.argmax(axis=1) == base.argmax(axis=1)).astype(np.float64)
    return Scores(nll, base_nll, kl_divergence(base, mine, least), np.exp(-nll) - np.exp(-base_nll), same)


# ---- files of a base ------------------------------------------------------------------------------------------


def pack(logits: Logits) -> Packed:
    """Log probabilities of logits [rows, n_vocab] as the file holds them: scale and least (two float32 each), codes."""
    n_vocab = logits.shape[1]
    out = np.zeros((len(logits), row_length(n_vocab)), "<u2")
    step = max(_BLOCK // n_vocab, 1)
    for at in range(0, len(logits), step):
        x, to = logits[at : at + step], out[at : at + step]
        most = x.max(axis=1)
        least = np.maximum(x.min(axis=1), most + np.float32(LEAST))
        scale = (most - least) / np.float32(65535)
        head = np.stack([scale, least - most - (log_sum_exp(x) - most).astype(np.float32)], axis=1)
        to[:, :4] = head.astype("<f4").view("<u2")
        with np.errstate(divide="ignore"):
            inverse = np.where(scale > 0, 1 / scale, 0).astype(np.float32)
        codes = np.maximum(x, least[:, None])
        codes -= least[:, None]
        codes *= inverse[:, None]
        to[:, 4 : 4 + n_vocab] = np.rint(codes, out=codes)
    return out


def unpack(rows: Packed, n_vocab: int) -> Logits:
    """float32 [rows, n_vocab]: log probabilities of packed rows."""
    head = np.ascontiguousarray(rows[:, :4]).view("<f4")
    result = rows[:, 4 : 4 + n_vocab].astype(np.float32)
    result *= head[:, :1]
    result += head[:, 1:]
    return result


def row_length(n_vocab: int) -> int:
    """16-bit numbers of a packed row."""
    return 4 + (n_vocab + 1) // 2 * 2


class BaseWriter:
    """Writes a base's file: the chunks' tokens, and by and by the scored logits of each chunk.

        with BaseWriter(path, chunks, n_vocab) as out:
            out.write(logits)

    The file is there when the block ends without an exception. ValueError if chunks are missing by then,
    PerplexityError if the disk has too little room.
    """

    def __init__(self, path: str | os.PathLike[str], chunks: npt.NDArray[np.int32], n_vocab: int) -> None:
        """chunks: tokens [n_chunk, n_ctx] of the text, without BOS."""
        self.path = Path(path)
        self._missing, n_ctx = chunks.shape
        self._rows = n_ctx - n_ctx // 2 - 1
        self._header = MAGIC + struct.pack("<Iii", n_ctx, n_vocab, len(chunks)) + chunks.astype("<i4").tobytes()
        self._nbytes = len(self._header) + len(chunks) * self._rows * 2 * row_length(n_vocab)

    def __enter__(self) -> BaseWriter:
        try:
            free = shutil.disk_usage(self.path.parent).free
            fd, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".tmp", dir=self.path.parent)
        except OSError as e:
            raise PerplexityError(f"{self.path}: cannot be written: {e.strerror or e}") from e
        self._temporary = Path(name)
        self._file: BinaryIO = os.fdopen(fd, "wb")
        if self._nbytes > free:
            self._give_up()
            raise PerplexityError(
                f"{self.path}: needs {self._nbytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free there: take "
                "fewer chunks (--chunks) or another disk"
            )
        self._file.write(self._header)
        return self

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is not missed
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def write(self, logits: Logits) -> None:
        """score() of the next chunk."""
        if len(logits) != self._rows or not self._missing:
            raise ValueError(f"{self.path}: {len(logits)} rows of a chunk, expected {self._rows * (self._missing > 0)}")
        self._missing -= 1
        pack(logits).tofile(self._file)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                if self._missing:
                    raise ValueError(f"{self.path}: {self._missing} chunks are missing")
                self._file.close()
                umask = os.umask(0)
                os.umask(umask)
                self._temporary.chmod(0o666 & ~umask)
                self._temporary.replace(self.path)
        finally:
            self._give_up()  # does nothing to a file that has its name by now


class BaseFile:
    """A base's file, open for reading. PerplexityError if it is not one, or not whole.

    n_ctx, n_vocab; tokens: [n_chunk, n_ctx].
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = self.path.open("rb")
        try:
            head = self._file.read(len(MAGIC) + 12)
            if len(head) < len(MAGIC) + 12 or not head.startswith(MAGIC):
                raise PerplexityError(f"{self.path} is no file of a base's probabilities (--kl-divergence-base)")
            self.n_ctx, self.n_vocab, n_chunk = struct.unpack("<Iii", head[len(MAGIC) :])
            if self.n_ctx < 3 or self.n_vocab < 1 or n_chunk < 1:
                raise PerplexityError(
                    f"{self.path}: n_ctx {self.n_ctx}, n_vocab {self.n_vocab} and n_chunk {n_chunk} make no sense"
                )
            self.n_rows = self.n_ctx - self.n_ctx // 2 - 1
            size = len(head) + n_chunk * (4 * self.n_ctx + 2 * self.n_rows * row_length(self.n_vocab))
            if (have := self.path.stat().st_size) < size:
                raise PerplexityError(f"{self.path} has {have} bytes, and {n_chunk} chunks take {size}: not whole")
            tokens = np.frombuffer(self._file.read(4 * n_chunk * self.n_ctx), "<i4")
            if tokens.min() < 0 or tokens.max() >= self.n_vocab:
                raise PerplexityError(f"{self.path} holds tokens outside its vocabulary of {self.n_vocab}")
            self.tokens: npt.NDArray[np.int32] = tokens.astype(np.int32).reshape(n_chunk, self.n_ctx)
        except BaseException:
            self._file.close()
            raise

    def read(self) -> Callable[[slice], Logits]:
        """The next chunk: a function that gives the log probabilities of some of its scored positions."""
        length = row_length(self.n_vocab)
        rows = np.frombuffer(self._file.read(2 * self.n_rows * length), "<u2").reshape(self.n_rows, length)
        return lambda part: unpack(rows[part], self.n_vocab)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> BaseFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# ---- the two measurements -------------------------------------------------------------------------------------


def perplexity(
    llm: LLM,
    ids: Sequence[int],
    *,
    n_ctx: int = DEFAULT_N_CTX,
    limit: int | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Iterator[Scores]:
    """After each chunk of the text's tokens (llm.tokenize(text)), the scores so far; the last are the result.

    limit: chunks at most. save: also write a base's file there. Raises PerplexityError if the text is too short,
    or the file cannot be made, ContextError if n_ctx is more than the model was loaded with, OSError if writing fails.
    """
    chunks = whole_chunks(ids, n_ctx, limit)
    total = Scores()
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(BaseWriter(save, chunks, llm.n_vocab)) if save is not None else None
        for chunk in chunks:
            logits = score(llm, with_bos(llm.tokenizer, chunk))
            if out:
                out.write(logits)
            total += scores(logits, targets(chunk))
            yield total


def divergence(llm: LLM, base: BaseFile, *, limit: int | None = None) -> Iterator[Scores]:
    """Likewise for the text of a base's file, with the divergence from it. PerplexityError if its vocabulary is not
    as large as the model's."""
    if base.n_vocab != llm.n_vocab:
        raise PerplexityError(
            f"{base.path} is of a vocabulary of {base.n_vocab} tokens, the model's has {llm.n_vocab}: take a base of "
            "the same model"
        )
    total = Scores()
    for chunk in base.tokens[:limit]:
        logits = score(llm, with_bos(llm.tokenizer, chunk))
        total += scores(logits, targets(chunk), base.read())
        yield total
