"""`pyllm quantize`: a model in smaller types."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .args import UsageError, subparser

if TYPE_CHECKING:
    from ..quant import Quantized
    from ..quant.mix import Choice

_MIB = 1 << 20


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(
        commands,
        "quantize",
        "write a model with its matrices in other types, as llama-quantize does",
        epilog="TYPE is one of: F32 F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS "
        "Q3_K_L Q3_K_M Q3_K_S Q2_K Q2_K_S MXFP4_MOE TQ2_0 TQ1_0. Without OUT the file is called NAME-TYPE.gguf.",
    )
    parser.add_argument(
        "words", nargs="+", metavar="IN [OUT] TYPE [THREADS]", help="a GGUF file (any part of a split one) or a name"
    )
    parser.add_argument("--imatrix", metavar="FILE", help="weight errors by this importance matrix (pyllm imatrix)")
    parser.add_argument(
        "--tensor-type",
        action="append",
        default=[],
        metavar="REGEX=TYPE",
        help="type of the tensors whose names match, as in 'attn_v=Q8_0' (may be repeated; the first match counts)",
    )
    parser.add_argument("--output-tensor-type", metavar="TYPE", help="type of output.weight")
    parser.add_argument("--token-embedding-type", metavar="TYPE", help="type of the token embedding")
    parser.add_argument("--pure", action="store_true", help="one type for all matrices")
    parser.add_argument(
        "--allow-requantize", action="store_true", help="take a model that is quantized already; loses more"
    )
    parser.add_argument("--leave-output-tensor", action="store_true", help="leave output.weight as it is")
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads (default: physical cores)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be written, and its size")
    parser.set_defaults(command=quantize)


def quantize(args: argparse.Namespace) -> int:
    """Write the file; a dry run prints the types to standard output."""
    from ..quant import quantize as run
    from .console import Bar, fetch, say

    source, target, mix, threads = _words(args.words)
    threads = args.threads if args.threads is not None else threads
    if threads is not None and threads < 1:
        raise UsageError(f"-t {threads}: give a positive number")
    path = fetch(source)
    if target is None:
        beside = path.parent if Path(source).exists() else Path()
        target = beside / f"{re.sub(r'[-.](F16|F32|BF16)$', '', _stem(path), flags=re.IGNORECASE)}-{mix}.gguf"
    dry = args.dry_run
    plain = dry or not sys.stderr.isatty()
    told: set[str] = set()
    with Bar(f"quantizing to {mix}") as bar:

        def progress(choice: Choice, done: int, total: int) -> None:
            bar.update(done, total)
            if plain and choice.tensor.name not in told:
                told.add(choice.tensor.name)
                say(_line(choice))

        result = run(
            path,
            None if dry else target,
            mix,
            imatrix=args.imatrix,
            tensor_types=[_named(text) for text in args.tensor_type],
            output_type=_type(args.output_tensor_type, "--output-tensor-type"),
            embedding_type=_type(args.token_embedding_type, "--token-embedding-type"),
            pure=args.pure,
            allow_requantize=args.allow_requantize or dry,
            leave_output=args.leave_output_tensor,
            n_threads=threads,
            progress=progress,
        )
    if dry:
        for choice in result.choices:
            print(_line(choice))
    _summary(result, say)
    if not dry:
        say(f"wrote {target}")
    return 0


def _summary(result: Quantized, say: Any) -> None:
    if result.fallbacks:
        say(f"{len(result.fallbacks)} tensors have rows that are no multiple of their type's block, and got another")
    if result.not_in_imatrix:
        shown = ", ".join(result.not_in_imatrix[:3]) + (", ..." if len(result.not_in_imatrix) > 3 else "")
        say(f"the imatrix has nothing for {len(result.not_in_imatrix)} tensors: {shown}")
    for label, size in (("before", result.bytes_before), ("after", result.bytes_after)):
        say(f"{label}: {size / _MIB:.2f} MiB, {8 * size / result.n_elements:.2f} bits per weight")


def _line(choice: Choice) -> str:
    tensor = choice.tensor
    shape = " x ".join(str(n) for n in tensor.shape)
    line = f"{tensor.name:<36} {shape:>18}  {tensor.type.name:>6}"
    if choice.type == tensor.type:
        return f"{line}            {tensor.nbytes / _MIB:10.2f} MiB"
    return f"{line} -> {choice.type.name:<6}  {tensor.nbytes / _MIB:10.2f} -> {choice.nbytes / _MIB:.2f} MiB"


def _words(words: list[str]) -> tuple[str, Path | None, str, int | None]:
    """Input, output, type and threads, as llama-quantize takes them: the output may be left out."""
    from ..quant import find_mix

    for at in (1, 2):
        if len(words) <= at:
            break
        try:
            mix = find_mix(words[at]).name
        except ValueError as e:
            if at == 2 or len(words) == 2:
                raise UsageError(str(e)) from None
            continue
        rest = words[at + 1 :]
        if len(rest) > 1 or not all(w.isdecimal() for w in rest):
            raise UsageError(f"after the type there can only be a number of threads, not {' '.join(rest)!r}")
        return words[0], Path(words[1]) if at == 2 else None, mix, int(rest[0]) if rest else None
    raise UsageError("give a file and a type, as in: pyllm quantize model-F16.gguf model-Q4_K_M.gguf Q4_K_M")


def _stem(path: Path) -> str:
    """The file's name without what says that it is one part of many."""
    return re.sub(r"-[0-9]{5}-of-[0-9]{5}$", "", path.name.removesuffix(".gguf"))


def _named(text: str) -> tuple[str, str]:
    """ "attn_v=Q8_0" as a pattern and a type. Case does not count."""
    pattern, equals, name = text.rpartition("=")
    if not pattern or not equals:
        raise UsageError(f"--tensor-type {text}: write a regular expression and a type, as in attn_v=Q8_0")
    try:
        re.compile(pattern)
    except re.error as e:
        raise UsageError(f"--tensor-type {text}: {pattern!r} is no regular expression: {e}") from None
    return f"(?i:{pattern})", _type(name, "--tensor-type") or ""


def _type(name: str | None, option: str) -> str | None:
    from ..quant import find_type

    if name is None:
        return None
    try:
        return find_type(name).name
    except ValueError as e:
        raise UsageError(f"{option}: {e}") from None
