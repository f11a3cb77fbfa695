"""`pyllm run`: one answer."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import TYPE_CHECKING, Any

from .args import (
    UsageError,
    add_model_options,
    add_sampling_options,
    answer_options,
    model_options,
    read_file,
    read_stdin,
    subparser,
)

if TYPE_CHECKING:
    from .. import LLM, Completion, Stream


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(
        commands,
        "run",
        "answer one prompt",
        usage='pyllm run [MODEL] "PROMPT" [options]   (or the prompt on standard input)',
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[MODEL] PROMPT",
        help="model (default: smollm2) and prompt; a prompt of - is read from standard input",
    )
    parser.add_argument("-m", "--model", metavar="MODEL", help="name (pyllm list), path to a .gguf file, or source")
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt")
    parser.add_argument("-f", "--file", metavar="FILE", help="read the prompt from a file")
    parser.add_argument("-sys", "--system-prompt", metavar="TEXT", help="system message (default: the model's own)")
    parser.add_argument("--raw", action="store_true", help="continue the text, without the model's chat template")
    parser.add_argument("--json", action="store_true", help="print one JSON object when the answer is complete")
    parser.add_argument("-v", "--verbose", action="store_true", help="say how long it took")
    add_sampling_options(parser)
    add_model_options(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Answer, streaming to standard output."""
    from .console import load

    model, prompt = model_and_prompt(args)
    answer = answer_options(args)
    if not prompt:
        raise UsageError("the prompt is empty")
    if args.raw and args.system_prompt is not None:
        raise UsageError("a system message needs the chat template: -sys and --raw exclude each other")
    with load(model, model_options(args), not args.no_check_memory) as llm:
        if args.raw:
            request: Any = prompt
        else:
            messages = [{"role": "user", "content": prompt}]
            if args.system_prompt is not None:
                messages.insert(0, {"role": "system", "content": args.system_prompt})
            request = llm.apply_chat_template(messages)
        completion = stream_answer(llm, request, answer, show=not args.json)
        if args.json:
            print_json(completion, model=model, path=str(llm.path))
        if args.verbose:
            print_timings(llm, completion)
    return 0


def stream_answer(llm: LLM, request: Any, answer: dict[str, Any], show: bool = True) -> Completion:
    """Run a request, writing text as it comes, with a progress bar while a long prompt is processed."""
    from .console import Bar

    with Bar("reading the prompt") as bar:

        def progress(done: int, total: int) -> None:
            if done < total:
                bar.update(done, total)
            else:
                bar.close()

        with llm.stream(request, progress=progress, **answer) as stream:
            return write_stream(stream, show)


def write_stream(stream: Stream, show: bool = True) -> Completion:
    """Write the pieces of an answer to standard output, and a newline at its end."""
    last = ""
    try:
        for piece in stream:
            if show:
                last = piece  # first: Ctrl-C may come at any moment
                sys.stdout.write(piece)
                sys.stdout.flush()
    finally:
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
    assert stream.completion is not None
    return stream.completion


def model_and_prompt(args: argparse.Namespace) -> tuple[str, str]:
    """The two out of -m, -p, -f, the words and standard input."""
    from ..hub import CATALOGUE, DEFAULT_MODEL, is_model

    if args.prompt is not None and args.file is not None:
        raise UsageError("give the prompt once: -p or -f")
    given = args.prompt is not None or args.file is not None
    words = list(args.words)
    model = args.model
    if model is None and words and (given or len(words) > 1 or is_model(words[0])):
        model = words.pop(0)
    if len(words) > (0 if given else 1):
        raise UsageError('put the prompt in quotes: pyllm run [MODEL] "PROMPT"')
    if args.prompt is not None:
        prompt = read_stdin() if args.prompt == "-" else args.prompt
    elif args.file is not None:
        prompt = read_file(args.file)
    elif words and words[0] != "-":
        prompt = words[0]
        if model is None and difflib.get_close_matches(prompt.lower(), [e.name for e in CATALOGUE], cutoff=0.8):
            raise UsageError(f"there is no model {prompt!r} (pyllm list shows the names); for a prompt use -p")
    elif not words and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError('there is no prompt: pyllm run "What is the capital of France?" (pyllm chat talks)')
    else:
        prompt = read_stdin()
    return model or DEFAULT_MODEL, prompt


def print_json(completion: Completion, **more: Any) -> None:
    """The answer as one JSON object on standard output."""
    import json
    from dataclasses import asdict

    print(json.dumps({**more, **asdict(completion)}, ensure_ascii=False))


def print_timings(llm: LLM, completion: Completion) -> None:
    """Where the time went, to standard error."""
    from .console import say

    usage, t = completion.usage, completion.timings
    say(f"load        {llm.load_time:8.2f} s")
    say(
        f"prompt      {t.prompt:8.2f} s   {usage.prompt_tokens} tokens, {usage.cached_tokens} cached"
        f"   {t.prompt_per_second:.1f} tokens/s"
    )
    say(
        f"generation  {t.generation:8.2f} s   {usage.completion_tokens} tokens   {t.generation_per_second:.1f} tokens/s"
    )
    say(f"ended by    {completion.finish_reason}, seed {completion.seed}")
