"""How far a way of running a model is from the weights: perplexity, KL divergence, agreement of the best token.

    python -m bench.fidelity smollm2 --ids ids.json --base f32
    python -m bench.fidelity model.gguf --text text.txt -ctk q8_0 -ctv q8_0 --json

The text is cut and scored as llama-perplexity does: chunks of n_ctx tokens, each from an empty cache and with BOS in
its first place where the model wants one; the second half of a chunk is scored. With --base the same text is also run
through another mode of the same file ("f32": float32 activations and cache, the weights as they are), and

    KL divergence   mean over scored positions of sum over the vocabulary of p_base log(p_base / p)
    same top        share of positions where both find the same token most probable

are what llama-perplexity --kl-divergence calls so.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pyllm

Logprobs = npt.NDArray[np.float64]  # [positions, n_vocab]


@dataclass(frozen=True)
class Fidelity:
    """n: positions scored. The last three are None without a base."""

    n: int
    perplexity: float
    kl_mean: float | None = None
    kl_max: float | None = None
    same_top: float | None = None


def log_softmax(logits: npt.NDArray[np.float32]) -> Logprobs:
    """Natural log probabilities, float64, of logits [rows, n_vocab]."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    return x


def kl_divergence(base: Logprobs, other: Logprobs) -> npt.NDArray[np.float64]:
    """[rows]: KL divergence of `other` from `base`, in nats."""
    result: npt.NDArray[np.float64] = (np.exp(base) * (base - other)).sum(axis=1)
    return result


def kl_from_top(
    top_ids: npt.NDArray[np.integer[Any]], top_logprobs: npt.NDArray[np.floating[Any]], other: Logprobs
) -> npt.NDArray[np.float64]:
    """[rows]: kl_divergence where only the k best tokens of the base are known ([rows, k]): the rest is one term."""
    base = top_logprobs.astype(np.float64)
    found = np.take_along_axis(other, top_ids.astype(np.int64), axis=1)
    rest_base = np.maximum(1 - np.exp(base).sum(axis=1), 1e-12)
    rest = np.maximum(1 - np.exp(found).sum(axis=1), 1e-12)
    result: npt.NDArray[np.float64] = (np.exp(base) * (base - found)).sum(axis=1) + rest_base * np.log(rest_base / rest)
    return result


def chunks(llm: pyllm.LLM, ids: Sequence[int], n_ctx: int, limit: int | None = None) -> list[list[int]]:
    """Whole chunks of n_ctx tokens, at most `limit`. ValueError if there is none."""
    count = len(ids) // n_ctx
    if count == 0:
        raise ValueError(f"the text has {len(ids)} tokens, and a chunk {n_ctx}: take a longer text or a smaller n_ctx")
    cut = [list(ids[i * n_ctx : (i + 1) * n_ctx]) for i in range(min(count, limit or count))]
    bos = llm.tokenizer.bos_id
    if llm.tokenizer.add_bos and bos is not None:
        for chunk in cut:
            chunk[0] = bos
    return cut


def score(llm: pyllm.LLM, chunk: Sequence[int]) -> Logprobs:
    """[n_ctx - n_ctx // 2 - 1, n_vocab]: predictions of the tokens after the first n_ctx // 2 + 1."""
    return log_softmax(llm.logits(chunk)[len(chunk) // 2 : -1])


def targets(chunk: Sequence[int]) -> npt.NDArray[np.int64]:
    """What score() predicts, row by row."""
    return np.array(chunk[len(chunk) // 2 + 1 :], np.int64)


def measure(
    llm: pyllm.LLM,
    ids: Sequence[int],
    base: pyllm.LLM | None = None,
    *,
    n_ctx: int = 512,
    limit: int | None = None,
) -> Iterator[tuple[Logprobs, Fidelity]]:
    """For each chunk, its log probabilities and the result so far; the last one is the result."""
    nll: list[float] = []
    kl: list[float] = []
    same: list[bool] = []
    for chunk in chunks(llm, ids, n_ctx, limit):
        found, wanted = score(llm, chunk), targets(chunk)
        nll += (-found[np.arange(len(wanted)), wanted]).tolist()
        if base is not None:
            truth = score(base, chunk)
            kl += kl_divergence(truth, found).tolist()
            same += (truth.argmax(axis=1) == found.argmax(axis=1)).tolist()
        perplexity = math.exp(np.mean(nll))
        if base is None:
            yield found, Fidelity(len(nll), perplexity)
        else:
            yield found, Fidelity(len(nll), perplexity, float(np.mean(kl)), max(kl), float(np.mean(same)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fidelity", description=__doc__.split("\n\n")[0])
    parser.add_argument("model", help="path, name or source, as for pyllm run")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--ids", type=Path, help="token ids, a JSON list")
    text.add_argument("--text", type=Path, help="text, UTF-8")
    parser.add_argument("--base", choices=["f32", "default"], help="compare with this mode, its cache in float32")
    parser.add_argument("--compute", choices=["default", "f32"], default="default", help="the mode to measure")
    parser.add_argument("-c", "--ctx-size", type=int, default=512, metavar="N", help="tokens of a chunk")
    parser.add_argument("--chunks", type=int, default=4, metavar="N", help="chunks at most; 0: all")
    parser.add_argument("-t", "--threads", type=int, metavar="N")
    parser.add_argument("-ctk", "--cache-type-k", default="f16", metavar="TYPE")
    parser.add_argument("-ctv", "--cache-type-v", default="f16", metavar="TYPE")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse_args(argv)

    common: dict[str, Any] = {"n_ctx": args.ctx_size, "n_threads": args.threads}
    base = pyllm.LLM(args.model, compute=args.base, kv_type="f32", **common) if args.base else None
    with pyllm.LLM(
        args.model, compute=args.compute, type_k=args.cache_type_k, type_v=args.cache_type_v, **common
    ) as llm:
        if args.ids:
            ids = json.loads(args.ids.read_text(encoding="utf-8"))
        else:
            ids = llm.tokenize(args.text.read_text(encoding="utf-8"))
        result = Fidelity(0, math.nan)
        for _, result in measure(llm, ids, base, n_ctx=args.ctx_size, limit=args.chunks or None):
            print(f"{result.n} positions, perplexity {result.perplexity:.4f}", file=sys.stderr)
    if base is not None:
        base.close()
    if args.json:
        options = {"compute": args.compute, "type_k": args.cache_type_k, "type_v": args.cache_type_v, "base": args.base}
        print(json.dumps({"model": str(args.model), **options, **asdict(result)}))
    else:
        print(f"| {'positions':>9} | {'perplexity':>10} | {'KL mean':>9} | {'KL max':>9} | {'same top':>8} |")
        print(f"|{'-' * 10}:|{'-' * 11}:|{'-' * 10}:|{'-' * 10}:|{'-' * 9}:|")
        rest = (
            f"{result.kl_mean:9.6f} | {result.kl_max:9.6f} | {result.same_top:8.2%}"
            if result.kl_mean is not None
            else f"{'':9} | {'':9} | {'':8}"
        )
        print(f"| {result.n:9} | {result.perplexity:10.4f} | {rest} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
