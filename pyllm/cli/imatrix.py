"""`pyllm imatrix`: how large the inputs of each matrix are over a text, for `pyllm quantize --imatrix`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .args import UsageError, read_file, subparser


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(
        commands, "imatrix", "make an importance matrix for quantize out of a text, as llama-imatrix does"
    )
    parser.add_argument("-m", "--model", metavar="MODEL", help="name, path or source (default: smollm2)")
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="the text; - for standard input")
    parser.add_argument(
        "-o", "--output", "--output-file", metavar="FILE", default="imatrix.gguf", help="default: imatrix.gguf"
    )
    parser.add_argument("-c", "--ctx-size", type=int, default=512, metavar="N", help="tokens per chunk (default: 512)")
    parser.add_argument("--chunks", type=int, default=-1, metavar="N", help="chunks at most; -1: all (default)")
    parser.add_argument("--process-output", action="store_true", help="collect for output.weight too")
    parser.add_argument("--parse-special", action="store_true", help="take spellings of control tokens as such")
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads (default: physical cores)")
    parser.set_defaults(command=imatrix)


def imatrix(args: argparse.Namespace) -> int:
    """Write the file."""
    from ..hub import DEFAULT_MODEL
    from ..quant import collect_imatrix
    from ..quant.collect import LEAST_CHUNK
    from .console import Bar, fetch, say

    if args.ctx_size < LEAST_CHUNK:
        raise UsageError(f"-c {args.ctx_size}: give {LEAST_CHUNK} tokens or more")
    if args.chunks == 0 or args.chunks < -1:
        raise UsageError(f"--chunks {args.chunks}: give a positive number, or -1 for all")
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"-t {args.threads}: give a positive number")
    text, path = read_file(args.file), fetch(args.model or DEFAULT_MODEL)
    with Bar("importance matrix") as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done, total)
            if not sys.stderr.isatty():
                say(f"chunk {done} of {total}")

        try:
            result = collect_imatrix(
                path,
                text,
                chunk_size=args.ctx_size,
                n_chunks=None if args.chunks == -1 else args.chunks,
                dataset=args.file,
                process_output=args.process_output,
                parse_special=args.parse_special,
                n_threads=args.threads,
                progress=progress,
            )
        except ValueError as e:
            raise UsageError(str(e)) from None
    for name, share in sorted(result.partial.items()):
        say(f"{name}: only {share:.0%} of its experts were used; more text would help")
    result.save(args.output)
    say(f"wrote {args.output}: {len(result.sums)} weights, {result.n_chunks} chunks of {result.chunk_size} tokens")
    return 0
