"""`pyllm convert`: a model folder of Hugging Face to a GGUF file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .args import subparser

TYPES = ("auto", "f32", "f16", "bf16", "q8_0")


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(commands, "convert", "convert a Hugging Face model folder (safetensors) to a .gguf file")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with config.json, *.safetensors, tokenizer")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .gguf file to write")
    parser.add_argument(
        "--type", choices=TYPES, default="auto", help="type of the matrices; auto (default): as the folder has them"
    )
    parser.add_argument("--pre", metavar="NAME", help="the pre-tokenizer's name, where it is not recognized")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.set_defaults(command=convert_)


def convert_(args: argparse.Namespace) -> int:
    """Convert; prints the path of the file."""
    from ..convert import convert
    from .console import Bar

    with Bar(f"converting {args.folder.name}", bytes_=True) as bar:
        path = convert(
            args.folder,
            args.output,
            args.type,
            pre=args.pre,
            overwrite=args.force,
            progress=lambda _name, done, total: bar.update(done, total),
        )
    print(path, flush=True)
    return 0
