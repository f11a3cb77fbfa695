"""`pyllm perplexity`: how well a model predicts a text, with llama-perplexity's flags, method and output."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .args import UsageError, add_model_options, model_options, read_file, read_stdin, subparser

if TYPE_CHECKING:
    from .. import LLM
    from ..perplexity import Scores

_EPILOG = """How far a quantized model is from the model it was made of:
  pyllm perplexity -m model-F16.gguf -f text.txt --kl-divergence-base base.dat
  pyllm perplexity -m model-Q4_0.gguf --kl-divergence-base base.dat --kl-divergence
The file is llama-perplexity's, and may come from it or go to it."""


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(
        commands,
        "perplexity",
        "measure how well a model predicts a text",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("word", nargs="?", metavar="MODEL", help="name, path or source (default: smollm2)")
    add("-m", "--model", metavar="MODEL", help="the same")
    add("-f", "--file", metavar="FILE", help="the text, a file; - for standard input")
    add("-p", "--prompt", metavar="TEXT", help="the text itself")
    add("--chunks", type=int, default=-1, metavar="N", help="chunks at most (default: -1, all)")
    add(
        "--ppl-output-type",
        type=int,
        choices=(0, 1),
        default=0,
        help="1: after each chunk a line with its first token's place, perplexity, mean and error of its logarithm",
    )
    add(
        "--kl-divergence-base",
        "--save-all-logits",
        metavar="FILE",
        help="write the probabilities there (16 bits for each token of the vocabulary), or with --kl-divergence read "
        "them and the text from there",
    )
    add("--kl-divergence", action="store_true", help="measure the divergence from the base's file")
    add("--json", action="store_true", help="print one JSON object at the end")
    add_model_options(parser, ctx_help="tokens of a chunk (default: 512, or as in the base's file)")
    parser.set_defaults(command=perplexity)


def perplexity(args: argparse.Namespace) -> int:
    """Measure; figures come as they are found."""
    from ..hub import DEFAULT_MODEL

    if args.word is not None and args.model is not None:
        raise UsageError("give the model once: MODEL or -m")
    if args.chunks < -1 or args.chunks == 0:
        raise UsageError(f"--chunks {args.chunks}: give a positive number, or -1 for all")
    if args.ctx_size is not None and args.ctx_size < 3:
        raise UsageError(f"-c {args.ctx_size}: a chunk needs at least 3 tokens")
    model = args.model or args.word or DEFAULT_MODEL
    if args.kl_divergence:
        return _divergence(model, args)
    return _perplexity(model, args)


def _limit(args: argparse.Namespace) -> int | None:
    return None if args.chunks == -1 else int(args.chunks)


def _load(model: str, n_ctx: int, args: argparse.Namespace) -> LLM:
    from .console import load, say

    llm = load(model, {**model_options(args), "n_ctx": n_ctx}, not args.no_check_memory)
    trained = llm.model.hparams.n_ctx_train
    if n_ctx > trained:
        say(f"pyllm perplexity: the model was trained on {trained} tokens of context, and a chunk has {n_ctx}")
    return llm


def _perplexity(model: str, args: argparse.Namespace) -> int:
    from ..perplexity import DEFAULT_N_CTX, Scores, perplexity, whole_chunks

    if (args.file is None) == (args.prompt is None):
        raise UsageError("give a text: pyllm perplexity -m MODEL -f FILE")
    if args.file is not None:
        text = read_file(args.file)
    else:
        text = read_stdin() if args.prompt == "-" else args.prompt
    n_ctx = args.ctx_size or DEFAULT_N_CTX
    with _load(model, n_ctx, args) as llm:
        ids = llm.tokenize(text)
        count = len(whole_chunks(ids, n_ctx, _limit(args)))
        found = Scores()
        sizes = []
        for found in _timed(
            perplexity(llm, ids, n_ctx=n_ctx, limit=_limit(args), save=args.kl_divergence_base), count, n_ctx
        ):
            sizes.append(found.perplexity.value)
            if not args.json:
                _show_chunk(found, len(sizes), n_ctx, args.ppl_output_type)
    value, error = found.perplexity
    if args.json:
        print(json.dumps({"n": len(found), "perplexity": [value, error], "chunks": sizes}))
    else:
        print(f"\nFinal estimate: PPL = {value:.4f} +/- {error:.5f}")
    return 0


def _show_chunk(found: Scores, number: int, n_ctx: int, form: int) -> None:
    value = found.perplexity.value
    if form == 0:
        sys.stdout.write(f"[{number}]{value:.4f},")
    else:
        mean, error = found.mean_nll
        print(f"{(number - 1) * n_ctx:8d}  {value:.4f}  {mean:4f}  {error:4f}")
    sys.stdout.flush()


def _timed(found: Iterator[Scores], count: int, n_ctx: int) -> Iterator[Scores]:
    """The same, and on standard error how long it is likely to take."""
    from .console import say

    say(f"pyllm perplexity: {count} {'chunk' if count == 1 else 'chunks'} of {n_ctx} tokens")
    start = time.perf_counter()
    for done, each in enumerate(found):
        if done == 0:
            seconds = time.perf_counter() - start
            say(f"pyllm perplexity: {seconds:.2f} seconds per chunk, {seconds * count / 60:.2f} minutes in all")
        yield each


# ---- divergence -----------------------------------------------------------------------------------------------


def _divergence(model: str, args: argparse.Namespace) -> int:
    from ..perplexity import BaseFile, Scores, divergence

    if args.kl_divergence_base is None:
        raise UsageError("--kl-divergence needs a base's file: --kl-divergence-base FILE")
    if args.file is not None or args.prompt is not None:
        raise UsageError("with --kl-divergence the text comes from the base's file: leave out -f and -p")
    with BaseFile(args.kl_divergence_base) as base:
        n_ctx = args.ctx_size or base.n_ctx
        if n_ctx < base.n_ctx:
            raise UsageError(f"-c {n_ctx}: the base's file has chunks of {base.n_ctx} tokens")
        with _load(model, n_ctx, args) as llm:
            found = Scores()
            count = len(base.tokens[: _limit(args)])
            for i, found in enumerate(_timed(divergence(llm, base, limit=_limit(args)), count, base.n_ctx)):
                if not args.json:
                    print("\n".join(table_lines(found, i + 1)), flush=True)
    if args.json:
        print(json.dumps(_as_dict(found)))
    else:
        print("\n" + report(found))
    return 0


def table_lines(found: Scores, number: int) -> list[str]:
    """A chunk's line of llama-perplexity's table, after the header if it is the first."""
    ppl, ratio, kl = found.perplexity, found.log_ratio, found.mean_kl
    rms, same = found.rms_p_diff, found.same_top_share
    line = (
        f"{number:4d}    {ppl.value:9.4f} ± {ppl.error:9.4f}    {ratio.value:10.5f} ± {ratio.error:10.5f}"
        f"    {kl.value:10.5f} ± {kl.error:10.5f}    {100 * rms.value:6.3f} ± {100 * rms.error:6.3f} %"
        f"    {100 * same.value:6.3f} ± {100 * same.error:6.3f} %"
    )
    return ["", _HEADER, line] if number == 1 else [line]


_HEADER = (
    "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS"
    "            Same top p"
)
_KL_PERCENTILES = ((99.9, 99.0, 95.0, 90.0), (10.0, 5.0, 1.0, 0.1))
_P_PERCENTILES = ((99.9, 99.0, 95.0, 90.0, 75.0), (25.0, 10.0, 5.0, 1.0, 0.1))


def report(found: Scores) -> str:
    """llama-perplexity's statistics of a divergence."""
    means = {
        "PPL(Q)": found.perplexity,
        "PPL(base)": found.base_perplexity,
        "ln(PPL(Q)/PPL(base))": found.log_ratio,
        "PPL(Q)/PPL(base)": found.ratio,
        "PPL(Q)-PPL(base)": found.difference,
    }
    lines = [f"{'Mean ' + name:<30}: {x.value:10.6f} ± {x.error:10.6f}" for name, x in means.items()]
    lines.insert(0, "====== Perplexity statistics ======")
    lines.insert(3, f"Cor(ln(PPL(Q)), ln(PPL(base))): {100 * found.correlation:6.2f}%")

    kl = found.mean_kl
    lines += ["", "====== KL divergence statistics ======", f"Mean    KLD: {kl.value:10.6f} ± {kl.error:10.6f}"]
    lines += [f"{name:<7} KLD: {x:10.6f}" for name, x in _percentiles(found.kl, *_KL_PERCENTILES)]

    mean, rms, same = found.mean_p_diff, found.rms_p_diff, found.same_top_share
    lines += ["", "====== Token probability statistics ======"]
    lines.append(f"Mean    Δp: {100 * mean.value:6.3f} ± {100 * mean.error:5.3f} %")
    lines += [f"{name:<7} Δp: {100 * x:6.3f}%" for name, x in _percentiles(found.p_diff, *_P_PERCENTILES)]
    lines.append(f"RMS Δp    : {100 * rms.value:6.3f} ± {100 * rms.error:5.3f} %")
    lines.append(f"Same top p: {100 * same.value:6.3f} ± {100 * same.error:5.3f} %")
    return "\n".join(lines)


def _percentiles(x: Any, above: tuple[float, ...], below: tuple[float, ...]) -> Iterator[tuple[str, float]]:
    import numpy as np

    yield "Maximum", float(x.max())
    for share in (*above, 50.0, *below):
        yield "Median" if share == 50.0 else f"{share:4.1f}%", float(np.percentile(x, share))
    yield "Minimum", float(x.min())


def _as_dict(found: Scores) -> dict[str, Any]:
    """For --json: a mean is [value, error]."""
    return {
        "n": len(found),
        "perplexity": list(found.perplexity),
        "base_perplexity": list(found.base_perplexity),
        "correlation": found.correlation,
        "log_ratio": list(found.log_ratio),
        "ratio": list(found.ratio),
        "difference": list(found.difference),
        "kl": list(found.mean_kl),
        "kl_percentiles": dict(_percentiles(found.kl, *_KL_PERCENTILES)),
        "p_diff": list(found.mean_p_diff),
        "p_diff_percentiles": dict(_percentiles(found.p_diff, *_P_PERCENTILES)),
        "rms_p_diff": list(found.rms_p_diff),
        "same_top": list(found.same_top_share),
    }
