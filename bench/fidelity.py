"""How far a way of running a model is from the weights: perplexity, KL divergence, agreement of the best token.

    python -m bench.fidelity smollm2 --ids ids.json
    python -m bench.fidelity model.gguf --text text.txt --compute default precise -ctk f16 q8_0 -ctv f16 q8_0 \\
        --peer llama.cpp=/opt/lcpp/bin/python

The text is cut and scored as llama-perplexity does (pyllm/perplexity.py). It is first run through the base, float32
activations and cache on the weights as they are, and then in every compute mode with every pair of
cache types, and by every peer (an interpreter that has llama-cpp-python, see bench/peers). Against the base,

    KL divergence   mean over scored positions of sum over the vocabulary of p_base log(p_base / p)
    same top        share of positions where both find the same token most probable

are what llama-perplexity --kl-divergence calls so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pyllm
from pyllm import hub
from pyllm.errors import DownloadError, PerplexityError
from pyllm.gguf import GGUFFile
from pyllm.machine import default_threads
from pyllm.options import COMPUTE_MODES
from pyllm.perplexity import Logits, Logprobs, Scores, log_softmax, score, scores, targets, whole_chunks, with_bos
from pyllm.tokenizer import Tokenizer

from .compare import Engine, Unsupported, Worker, WorkerError
from .results import Setup, markdown


@dataclass(frozen=True)
class Fidelity:
    """n: positions scored. The last three are None without a base."""

    n: int
    perplexity: float
    kl_mean: float | None = None
    kl_max: float | None = None
    same_top: float | None = None

    @classmethod
    def of(cls, found: Scores) -> Fidelity:
        n, ppl = len(found), found.perplexity.value
        if not len(found.kl):
            return cls(n, ppl)
        return cls(n, ppl, found.mean_kl.value, float(found.kl.max()), found.same_top_share.value)


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


def chunks(tokenizer: Tokenizer, ids: Sequence[int], n_ctx: int, limit: int | None = None) -> list[list[int]]:
    """The chunks of a text as they are run."""
    return [with_bos(tokenizer, chunk) for chunk in whole_chunks(ids, n_ctx, limit)]


def against(chunk: Sequence[int], found: Logits, base: Logits | None = None) -> Scores:
    """Scores of a chunk's logits (score()) and, with those of the base, of the divergence from them, in float64."""
    return scores(found, targets(chunk), None if base is None else lambda rows: log_softmax(base[rows]))


def measure(
    llm: pyllm.LLM, ids: Sequence[int], base: pyllm.LLM | None = None, *, n_ctx: int = 512, limit: int | None = None
) -> Iterator[tuple[Logprobs, Fidelity]]:
    """For each chunk, its log probabilities and the result so far; the last one is the result."""
    total = Scores()
    for chunk in chunks(llm.tokenizer, ids, n_ctx, limit):
        found = score(llm, chunk)
        total += against(chunk, found, None if base is None else score(base, chunk))
        yield log_softmax(found), Fidelity.of(total)


# ---- several ways of running one file ------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """compute: pyllm's mode, or empty for the peer."""

    name: str
    type_k: str
    type_v: str
    compute: str = ""
    peer: Engine | None = None


BASE = Way("base: f32", "f32", "f32", compute="f32")


def run(way: Way, model: str, cut: Sequence[Sequence[int]], threads: int | None, folder: Path) -> Iterator[Logits]:
    """score() of each chunk, by loading the model in this way; a folder for files of a peer."""
    n_ctx = len(cut[0])
    if way.peer is None:
        options: dict[str, Any] = {"compute": way.compute, "type_k": way.type_k, "type_v": way.type_v}
        with pyllm.LLM(model, n_ctx=n_ctx, n_threads=threads, **options) as llm:
            for chunk in cut:
                yield score(llm, chunk)
        return
    worker = Worker(way.peer)
    try:
        worker.load(Setup(model, threads or default_threads(), way.type_k, way.type_v), n_ctx)
        for chunk in cut:
            file = folder / "peer.f32"
            first = n_ctx // 2
            n_vocab = worker.ask(do="logits", ids=list(chunk), first=first, file=str(file))["n_vocab"]
            yield np.fromfile(file, np.float32).reshape(n_ctx - first, n_vocab)[:-1]
    finally:
        worker.close()


def compare_ways(
    model: str, cut: Sequence[Sequence[int]], ways: Sequence[Way], base: Way | None = BASE, threads: int | None = None
) -> Iterator[tuple[Way, Fidelity]]:
    """Each way's result over the chunks, the base's first. One model is loaded at a time; the base's logits wait on
    the disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way in [base, *ways] if base else ways:
            total = Scores()
            for i, (chunk, found) in enumerate(zip(cut, run(way, model, cut, threads, folder), strict=True)):
                file = folder / f"base-{i}.npy"
                if way is base:
                    np.save(file, found)
                truth = None if base is None or way is base else np.load(file, mmap_mode="r")
                total += against(chunk, found, truth)
                print(f"{way.name}: {len(total)} positions, {total.perplexity.value:.4f}", file=sys.stderr)
            yield way, Fidelity.of(total)


def table(results: Sequence[tuple[Way, Fidelity]]) -> str:
    """Markdown; perplexities also as their distance from the first line's if that is the base."""
    lines = [["", "K/V", "positions", "perplexity", "to base", "KL mean", "KL max", "same top"]]
    first = results[0][1].perplexity
    for way, r in results:
        line = [way.name, f"{way.type_k}/{way.type_v}", str(r.n), f"{r.perplexity:.4f}"]
        if r.kl_mean is not None and r.kl_max is not None and r.same_top is not None:
            line += [f"{r.perplexity / first - 1:+.3%}", f"{r.kl_mean:.6f}", f"{r.kl_max:.5f}", f"{r.same_top:.2%}"]
        lines.append(line + [""] * (len(lines[0]) - len(line)))
    return markdown(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fidelity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="path, name or source, as for pyllm run")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--ids", type=Path, help="token ids, a JSON list")
    text.add_argument("--text", type=Path, help="text, UTF-8")
    add("--compute", choices=COMPUTE_MODES, nargs="*", default=["default"], help="modes to measure (default: default)")
    add("-ctk", "--cache-type-k", nargs="+", default=["f16"], metavar="TYPE", help="types of the K cache, in turn")
    add("-ctv", "--cache-type-v", nargs="+", metavar="TYPE", help="of the V cache, as many (default: those of K)")
    add("--peer", type=Engine.parse, action="append", default=[], metavar="NAME=PYTHON", help="as for bench.compare")
    add("--no-base", action="store_true", help="perplexity alone")
    add("-c", "--ctx-size", type=int, default=512, metavar="N", help="tokens of a chunk (default: 512)")
    add("--chunks", type=int, default=4, metavar="N", help="chunks at most (default: 4); 0: all")
    add("-t", "--threads", type=int, metavar="N")
    add("--json", action="store_true", help="a JSON list on stdout")
    args = parser.parse_args(argv)
    types_v = args.cache_type_v or args.cache_type_k
    if len(types_v) != len(args.cache_type_k):
        parser.error("-ctk and -ctv need the same number of types")
    ways = [
        Way(name, k, v, compute, peer)
        for name, compute, peer in [*((c, c, None) for c in args.compute), *((p.name, "", p) for p in args.peer)]
        for k, v in zip(args.cache_type_k, types_v, strict=True)
    ]
    try:
        model = str(hub.resolve(args.model))
    except DownloadError as error:
        print(f"fidelity: {error}", file=sys.stderr)
        return 2
    with GGUFFile.open(model) as file:
        tokenizer = Tokenizer.from_gguf(file)
    if args.ids:
        ids = json.loads(args.ids.read_text(encoding="utf-8"))
    else:
        ids = tokenizer.encode(args.text.read_text(encoding="utf-8"))
    try:
        cut = chunks(tokenizer, ids, args.ctx_size, args.chunks or None)
        results = list(compare_ways(model, cut, ways, None if args.no_base else BASE, args.threads))
    except (PerplexityError, WorkerError, Unsupported) as error:
        print(f"fidelity: {error}", file=sys.stderr)
        return 2
    if args.json:
        rows = [{"way": w.name, "type_k": w.type_k, "type_v": w.type_v, **asdict(r)} for w, r in results]
        print(json.dumps(rows, indent=1))
    else:
        print(f"{Path(model).name}, chunks of {args.ctx_size} tokens\n\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
