"""Options that several commands share, named as in llama.cpp, and what becomes of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..options import COMPUTE_MODES, KV_TYPES

if TYPE_CHECKING:
    from ..sampler import SamplingParams


class UsageError(Exception):
    """The command line makes no sense; the message says what would."""


def subparser(commands: Any, name: str, summary: str, **options: Any) -> argparse.ArgumentParser:
    """A command's parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False, **options
    )
    return parser


# ---- model ------------------------------------------------------------------------------------------------


_CTX_HELP = "tokens of context; 0: as many as the model knows (default: the model's, at most 4096)"


def add_model_options(parser: argparse.ArgumentParser, ctx_help: str = _CTX_HELP) -> None:
    """-c -t -b -ctk -ctv ...: how to load a model. ctx_help: where -c means something else."""
    group = parser.add_argument_group("model")
    group.add_argument("-c", "--ctx-size", type=int, metavar="N", help=ctx_help)
    group.add_argument("-t", "--threads", type=int, metavar="N", help="threads (default: physical cores)")
    group.add_argument("-b", "--batch-size", type=int, metavar="N", help="tokens per step at most (default: 512)")
    group.add_argument(
        "-ctk",
        "--cache-type-k",
        choices=KV_TYPES,
        metavar="TYPE",
        help=f"type of the K cache: {', '.join(KV_TYPES)} (default: f16)",
    )
    group.add_argument(
        "-ctv", "--cache-type-v", choices=KV_TYPES, metavar="TYPE", help="type of the V cache (default: f16)"
    )
    group.add_argument(
        "--no-repack", action="store_true", help="read the weights from the file's mapping: loads at once, runs slower"
    )
    group.add_argument("--no-huge-pages", action="store_true", help="do not ask the system for huge pages")
    group.add_argument(
        "--compute",
        choices=COMPUTE_MODES,
        help="precise: as near the weights as float32 activations; f32: the exact reference, slow (default: default)",
    )
    group.add_argument(
        "--no-check-memory", action="store_true", help="load even if the memory plan is over what is available"
    )


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of pyllm.LLM and pyllm.plan, but for those left at their defaults."""
    options: dict[str, Any] = {}
    names = {
        "ctx_size": "n_ctx", "threads": "n_threads", "batch_size": "n_batch", "cache_type_k": "type_k",
        "cache_type_v": "type_v", "compute": "compute",
    }  # fmt: skip
    for name, option in names.items():
        if getattr(args, name) is not None:
            options[option] = getattr(args, name)
    if args.no_repack:
        options["repack"] = False
    if args.no_huge_pages:
        options["huge_pages"] = False
    return options


# ---- sampling ---------------------------------------------------------------------------------------------

# flags, SamplingParams field, type, help
_SAMPLING: tuple[tuple[tuple[str, ...], str, type, str], ...] = (
    (("--temp",), "temperature", float, "temperature; 0 takes the most probable token (default: 0.8)"),
    (("--top-k",), "top_k", int, "keep the K most probable tokens; 0 keeps all (default: 40)"),
    (("--top-p",), "top_p", float, "keep tokens up to this share of the probability; 1 keeps all (default: 0.95)"),
    (("--min-p",), "min_p", float, "keep tokens this many times as probable as the best (default: 0.05)"),
    (("--typical", "--typical-p"), "typical_p", float, "locally typical sampling; 1 is off (default: 1)"),
    (("--top-nsigma", "--top-n-sigma"), "top_n_sigma", float, "keep tokens within N standard deviations; -1 is off"),
    (("--xtc-probability",), "xtc_probability", float, "chance of dropping the most probable tokens (default: 0)"),
    (("--xtc-threshold",), "xtc_threshold", float, "probability from which XTC drops (default: 0.1)"),
    (("--dynatemp-range",), "dynatemp_range", float, "temperature varies by this with the entropy (default: 0)"),
    (("--dynatemp-exp",), "dynatemp_exponent", float, "exponent of that (default: 1)"),
    (("--repeat-penalty",), "repeat_penalty", float, "penalty on tokens seen lately; 1 is off (default: 1)"),
    (("--repeat-last-n",), "repeat_last_n", int, "tokens that penalties look at; -1: all (default: 64)"),
    (("--presence-penalty",), "presence_penalty", float, "penalty on tokens that occurred (default: 0)"),
    (("--frequency-penalty",), "frequency_penalty", float, "penalty per occurrence (default: 0)"),
    (("--dry-multiplier",), "dry_multiplier", float, "DRY penalty on repeating sequences; 0 is off (default: 0)"),
    (("--dry-base",), "dry_base", float, "DRY base (default: 1.75)"),
    (("--dry-allowed-length",), "dry_allowed_length", int, "length that DRY allows (default: 2)"),
    (("--dry-penalty-last-n",), "dry_penalty_last_n", int, "tokens that DRY looks at; -1: all (default: -1)"),
    (("--mirostat",), "mirostat", int, "1 or 2: Mirostat instead of the filters (default: 0)"),
    (("--mirostat-ent",), "mirostat_tau", float, "Mirostat's target surprise, tau (default: 5)"),
    (("--mirostat-lr",), "mirostat_eta", float, "Mirostat's learning rate, eta (default: 0.1)"),
)  # fmt: skip


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """-s --temp --top-k ...: how the next token is chosen, and when an answer ends."""
    group = parser.add_argument_group("answer")
    group.add_argument(
        "-n",
        "--n-predict",
        type=int,
        default=-1,
        metavar="N",
        help="tokens at most; -1: until it ends by itself or the context is full",
    )
    group.add_argument(
        "-r",
        "--reverse-prompt",
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="stop at this text (may be repeated)",
    )
    group.add_argument("--ignore-eos", action="store_true", help="go on after end tokens")
    group = parser.add_argument_group("sampling")
    group.add_argument("-s", "--seed", type=int, metavar="N", help="seed; -1: a random one (default)")
    for flags, field, kind, text in _SAMPLING:
        group.add_argument(*flags, dest=field, type=kind, metavar="N" if kind is int else "X", help=text)
    group.add_argument(
        "--dry-sequence-breaker",
        action="append",
        metavar="TEXT",
        help="text that ends a sequence for DRY (may be repeated; 'none': no breakers)",
    )
    group.add_argument(
        "-l",
        "--logit-bias",
        action="append",
        default=[],
        metavar="ID(+/-)BIAS",
        help="change a token's logit, as in 15043+1 or 15043-inf (may be repeated)",
    )


SAMPLING_FIELDS = {field: kind for _, field, kind, _ in _SAMPLING}
"""The names and types of SamplingParams that are plain numbers."""

SAMPLING_FLAGS = {flag.lstrip("-").replace("-", "_"): field for flags, field, _, _ in _SAMPLING for flag in flags}
"""Other names of the same: those of the flags."""


def sampling_params(args: argparse.Namespace) -> SamplingParams:
    """SamplingParams of the options given; UsageError for values out of range."""
    from ..sampler import SamplingParams

    chosen = {field: getattr(args, field) for field in SAMPLING_FIELDS if getattr(args, field) is not None}
    if args.seed is not None and args.seed != -1:
        chosen["seed"] = args.seed
    if args.dry_sequence_breaker:
        breakers = [_unescape(b) for b in args.dry_sequence_breaker if b != "none"]
        chosen["dry_sequence_breakers"] = tuple(breakers)
    if args.logit_bias:
        chosen["logit_bias"] = dict(_logit_bias(text) for text in args.logit_bias)
    try:
        return SamplingParams(**chosen)
    except ValueError as e:
        raise UsageError(str(e)) from None


def answer_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of LLM.stream and LLM.chat."""
    if args.n_predict < -1 or args.n_predict == 0:
        raise UsageError(f"-n {args.n_predict}: give a positive number, or -1 for no limit")
    return {
        "max_tokens": None if args.n_predict == -1 else args.n_predict,
        "stop": [_unescape(text) for text in args.reverse_prompt],
        "params": sampling_params(args),
        "ignore_eos": args.ignore_eos,
    }


def _logit_bias(text: str) -> tuple[int, float]:
    """ "15043-1.5" as (15043, -1.5)."""
    digits = len(text) - len(text.lstrip("0123456789"))
    try:
        return int(text[:digits]), float(text[digits:])
    except ValueError:
        raise UsageError(f"--logit-bias {text}: write a token's id and what to add, as in 15043+1") from None


def _unescape(text: str) -> str:
    r"""\n and \t as a shell's user writes them."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


# ---- text -------------------------------------------------------------------------------------------------


def read_stdin() -> str:
    """All of standard input, as UTF-8 whatever the locale; one newline at its end is taken off."""
    return _without_newline(sys.stdin.buffer.read().decode("utf-8", "replace"))


def read_file(path: str) -> str:
    """A text file, likewise; "-" is standard input."""
    if path == "-":
        return read_stdin()
    return _without_newline(Path(path).read_bytes().decode("utf-8", "replace"))


def _without_newline(text: str) -> str:
    return text[:-1].removesuffix("\r") if text.endswith("\n") else text
