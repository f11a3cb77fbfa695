"""`pyllm tokenize`: text to token ids."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .args import UsageError, read_stdin, subparser


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(commands, "tokenize", "show the tokens of a text")
    parser.add_argument(
        "words", nargs="*", metavar="[MODEL] TEXT", help="model (default: smollm2) and text; - for standard input"
    )
    parser.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="name, path to a .gguf file (one with a vocabulary only will do), or source",
    )
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="the text")
    parser.add_argument("-f", "--file", metavar="FILE", help="read the text from a file")
    parser.add_argument("--stdin", action="store_true", help="read the text from standard input")
    parser.add_argument("--ids", action="store_true", help="print the ids only, as a list")
    parser.add_argument(
        "--no-bos", action="store_true", help="do not add a beginning-of-text token even if the model wants one"
    )
    parser.add_argument(
        "--no-parse-special", action="store_true", help="take the spelling of special tokens for ordinary text"
    )
    parser.add_argument("--show-count", action="store_true", help="print the number of tokens too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=tokenize)


def tokenize(args: argparse.Namespace) -> int:
    """One line per token: id and text."""
    from ..hub import DEFAULT_MODEL
    from ..tokenizer import Tokenizer
    from .console import fetch
    from .run import model_and_prompt

    if args.stdin:
        if args.prompt is not None or args.file is not None or len(args.words) > 1:
            raise UsageError("--stdin excludes any other text")
        model, text = args.model or (args.words or [DEFAULT_MODEL])[0], read_stdin()
    else:
        model, text = model_and_prompt(args)
    tokenizer = Tokenizer.from_gguf(fetch(model))
    ids = tokenizer.encode(text, add_special=not args.no_bos, parse_special=not args.no_parse_special)
    if args.json:
        pieces = [tokenizer.token_text(i) for i in ids]
        print(json.dumps({"n_tokens": len(ids), "tokens": ids, "pieces": pieces}, ensure_ascii=False))
        return 0
    if args.ids:
        print(json.dumps(ids))
    else:
        sys.stdout.writelines(f"{i:6d} -> {tokenizer.token_text(i)!r}\n" for i in ids)
    if args.show_count:
        print(f"Total number of tokens: {len(ids)}")
    return 0
