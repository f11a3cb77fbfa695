"""`pyllm info`: this machine, and what a model would take on it."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from .args import UsageError, add_model_options, model_options, subparser

if TYPE_CHECKING:
    from ..gguf import GGUFFile


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(commands, "info", "show this machine, or a model and the memory it takes")
    parser.add_argument("word", nargs="?", metavar="MODEL", help="name, path or source")
    parser.add_argument("-m", "--model", metavar="MODEL", help="the same")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)
    parser.set_defaults(command=info)


def info(args: argparse.Namespace) -> int:
    """Print the machine; with a model, that instead. The status is 1 for a model that cannot be run here."""
    if args.word is not None and args.model is not None:
        raise UsageError("give the model once")
    name = args.model or args.word
    if name is None:
        facts = machine()
        if args.json:
            print(json.dumps(facts, indent=2))
        else:
            print_machine(facts)
        return 0
    return _model(name, args)


# ---- machine ------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Facts about the machine as this process may use it."""
    from .. import __version__, machine
    from ..hub import cache_dir

    return {
        "version": __version__,
        "cpu": machine.cpu_name(),
        "level": machine.cpu_level(),
        "levels": machine.cpu_levels(),
        "threads": machine.default_threads(),
        "physical_cores": machine.physical_cores(),
        "logical_cpus": len(machine.logical_cpus()),
        "cpu_quota": machine.cpu_quota(),
        "available_memory": machine.available_memory(),
        "cache": str(cache_dir()),
        "kernels": [{"op": op, "type": kind, "level": level} for op, kind, level in machine.kernel_table()],
    }


def print_machine(facts: dict[str, Any]) -> None:
    """The same for people: kernels as a table of type by operation, naming the level."""
    quota = f", quota {facts['cpu_quota']:g} CPUs" if facts["cpu_quota"] else ""
    memory = facts["available_memory"]
    rows = [
        ("pyllm", facts["version"]),
        ("CPU", facts["cpu"]),
        ("level", f"{facts['level']}   (has: {', '.join(facts['levels'])}; PYLLM_CPU lowers it)"),
        ("threads", f"{facts['threads']}   ({facts['physical_cores']} cores, {facts['logical_cpus']} CPUs{quota})"),
        ("memory", _bytes(memory) + " available" if memory is not None else "unknown"),
        ("models in", facts["cache"]),
    ]
    _table(rows)
    print("\nkernels in use")
    ops: dict[str, dict[str, str]] = {}
    for kernel in facts["kernels"]:
        ops.setdefault(kernel["op"], {})[kernel["type"]] = kernel["level"]
    for op, types in ops.items():
        levels: dict[str, list[str]] = {}
        for kind, level in types.items():
            levels.setdefault(level, []).append(kind)
        text = "; ".join(f"{level}{': ' if any(kinds) else ''}{' '.join(kinds)}" for level, kinds in levels.items())
        print(f"  {op:<14}{text}")


# ---- model --------------------------------------------------------------------------------------------------


def _model(name: str, args: argparse.Namespace) -> int:
    from ..errors import PyllmError
    from ..gguf import GGUFFile
    from ..model import Model
    from ..options import ModelOptions
    from .console import fetch, say

    path = fetch(name)
    problem: Exception | None = None
    with GGUFFile.open(path) as file:
        facts: dict[str, Any] = {"path": str(path), **file_facts(file)}
        options = model_options(args)
        try:
            if options.get("n_ctx") == 0:
                options["n_ctx"] = facts["context_length"]
            chosen = ModelOptions(**options)
        except ValueError as e:
            raise UsageError(str(e)) from None
        try:
            model = Model(path, chosen)
            try:
                plan = model.plan()
                facts |= {"n_ctx": model.n_ctx, "n_threads": model.n_threads, "plan": plan.to_dict()}
                plan.check()
            finally:
                model.close()
        except PyllmError as e:
            problem = e
    facts["problem"] = str(problem) if problem else None
    if args.json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        print_model(facts)
    if problem:
        say(f"pyllm: {problem}")
    return 1 if problem else 0


def file_facts(file: GGUFFile) -> dict[str, Any]:
    """What a GGUF file says of itself, whether or not it can be run."""
    tensors = list(file.tensors.values())
    kinds: Counter[str] = Counter()
    for tensor in tensors:
        kinds[tensor.type.name] += tensor.nbytes
    arch = file.get_str("general.architecture", "")

    def number(key: str) -> int | None:
        value = file.metadata.get(f"{arch}.{key}")
        return value if isinstance(value, int) else None

    return {
        "name": file.get_str("general.name", None),
        "architecture": arch,
        "licence": file.get_str("general.license", None),
        "n_params": sum(t.n_elements for t in tensors),
        "size": sum(t.nbytes for t in tensors),
        "types": dict(kinds.most_common()),
        "n_tensors": len(tensors),
        "context_length": number("context_length"),
        "embedding_length": number("embedding_length"),
        "block_count": number("block_count"),
        "tokenizer": file.get_str("tokenizer.ggml.model", None),
        "pre": file.get_str("tokenizer.ggml.pre", None),
        "n_vocab": len(file.metadata.get("tokenizer.ggml.tokens", ())),
        "chat_template": bool(file.metadata.get("tokenizer.chat_template")),
    }


def print_model(facts: dict[str, Any]) -> None:
    """The same for people."""
    types = ", ".join(f"{kind} {_bytes(size)}" for kind, size in facts["types"].items())
    shape = f"{facts['block_count']} blocks of width {facts['embedding_length']}"
    rows = [
        ("file", facts["path"]),
        ("name", facts["name"] or "-"),
        ("architecture", f"{facts['architecture']}, {shape}"),
        ("parameters", f"{facts['n_params']:,}"),
        ("weights", f"{_bytes(facts['size'])} in {facts['n_tensors']} tensors: {types}"),
        ("context", f"{facts['context_length']} tokens trained"),
        ("tokenizer", f"{facts['tokenizer']} {facts['pre'] or ''}, {facts['n_vocab']} tokens"),
        ("chat template", "yes" if facts["chat_template"] else "no (plain completion: pyllm run --raw)"),
        ("licence", facts["licence"] or "-"),
    ]
    _table(rows)
    plan = facts.get("plan")
    if plan is None:
        return
    print(f"\nmemory, with a context of {facts['n_ctx']} tokens and {facts['n_threads']} threads")
    labels = {
        "weights_mapped": "weights, read from the file's mapping",
        "weights_packed": "weights, in the kernels' layout",
        "kv": "KV cache",
        "scratch": "activations",
        "threads": "working memory of threads",
        "constants": "norms and constants",
        "total": "total",
        "available": "available",
    }
    for key, label in labels.items():
        if plan[key] is not None:
            print(f"  {label:<40}{plan[key]:>16,} bytes")


def _table(rows: list[tuple[str, str]]) -> None:
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")


def _bytes(n: int) -> str:
    from ..hub.cache import human

    return human(n)
