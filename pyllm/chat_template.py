"""Chat templates: the Jinja program in a GGUF file that turns messages into the model's own prompt format.

Rendering gives what transformers' `apply_chat_template` gives. The template is foreign code: it runs in the
sandbox of pyllm/template_sandbox.py, with a limit on what it may write. Jinja is imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from .errors import TemplateError

KEY = "tokenizer.chat_template"
MAX_OUTPUT = 4 << 20  # characters, or four times the messages if that is more
MAX_NODES = 200_000  # values in one container; one more per character of the messages
MAX_STEPS = 1_000_000  # iterations, calls and operators; one more per eight characters of the messages


class TokenTexts(Protocol):
    """What a template needs of a pyllm.Tokenizer."""

    bos_id: int | None
    eos_id: int | None

    def token_text(self, id: int, /) -> str: ...


class ChatTemplate:
    """A compiled template, or several named ones of one model. Several threads may render at once."""

    def __init__(self, templates: Mapping[str, str] | str, bos_token: str = "", eos_token: str = "") -> None:
        """templates: the text, or texts by name with the usual one called "default".

        Raises TemplateError if there is none or one is not valid Jinja."""
        self.sources = {"default": templates} if isinstance(templates, str) else dict(templates)
        if not self.sources:
            raise TemplateError(
                "this model has no chat template: it is a base model, or its file lacks one. "
                "Use plain completion instead (generate(), or --raw on the command line)"
            )
        self.bos_token = bos_token
        self.eos_token = eos_token
        self._compiled = {name: _compile(name, source) for name, source in self.sources.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], tokenizer: TokenTexts) -> ChatTemplate:
        """The templates of a GGUF file: the keys tokenizer.chat_template and tokenizer.chat_template.NAME.

        tokenizer: says how BOS and EOS are written, which templates insert. Raises TemplateError."""
        templates: dict[str, str] = {}
        for key in metadata:
            if key == KEY or key.startswith(f"{KEY}."):
                value = metadata[key]
                if isinstance(value, str) and value:
                    templates[key[len(KEY) + 1 :] or "default"] = value
        bos, eos = ("" if i is None else tokenizer.token_text(i) for i in (tokenizer.bos_id, tokenizer.eos_id))
        return cls(templates, bos, eos)

    @property
    def source(self) -> str:
        """The text of the usual template."""
        return self.sources[self._pick(None, None)]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt text for these messages ({"role": ..., "content": ...}, ...).

        The text holds the special tokens, BOS too where the template writes it: tokenize it with
        parse_special, and without adding another BOS. add_generation_prompt: end with the beginning of the
        assistant's answer. tools: JSON schemas, for templates that know tools. name: one of several
        templates. variables: anything else that the template reads.

        Raises TemplateError, with the template's own words where it refuses."""
        import jinja2

        from .template_sandbox import Budget, Stopped, budget_of

        template = self._compiled[self._pick(name, tools)]
        size = _size((messages, tools or (), variables))
        budget = Budget(max(MAX_OUTPUT, 4 * size), MAX_STEPS + size // 8, MAX_NODES + size)
        context: dict[str, Any] = {
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "messages": list(messages),
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **variables,
        }
        pieces: list[str] = []
        length = 0
        token = budget_of.set(budget)
        try:
            for piece in template.generate(context):
                length += len(piece)
                if length > budget.max_length:
                    raise Stopped("it writes too much text")
                pieces.append(piece)
        except Stopped as e:
            raise TemplateError(f"the model's chat template is broken or hostile: {e}") from e
        except jinja2.TemplateError as e:
            raise TemplateError(f"the model's chat template refuses{_line(e)}: {e}") from e
        except RecursionError as e:
            raise TemplateError("the model's chat template calls itself without end") from e
        except Exception as e:  # whatever Python raises at the operations of a template
            raise TemplateError(f"the model's chat template fails{_line(e)}: {type(e).__name__}: {e}") from e
        finally:
            budget_of.reset(token)
        return "".join(pieces)

    def _pick(self, name: str | None, tools: Any) -> str:
        """By name; with tools, "tool_use" if there is one; else the usual template."""
        if name is not None:
            if name not in self.sources:
                raise TemplateError(f"this model has no chat template {name!r}, only {', '.join(self.sources)}")
            return name
        if tools and "tool_use" in self.sources:
            return "tool_use"
        return "default" if "default" in self.sources else next(iter(self.sources))


def _compile(name: str, source: str) -> Any:
    import jinja2

    from .template_sandbox import compile_template

    try:
        return compile_template(_environment(), source)
    except jinja2.TemplateSyntaxError as e:
        which = "" if name == "default" else f" {name!r}"
        raise TemplateError(
            f"the model's chat template{which} is not valid Jinja: {e.message} (line {e.lineno})"
        ) from e
    except Exception as e:  # what Python's compiler raises at a template that Jinja's parser let through
        raise TemplateError(f"the model's chat template cannot be compiled: {type(e).__name__}: {e}") from e


@lru_cache(maxsize=1)
def _environment() -> Any:
    from .template_sandbox import make_environment

    return make_environment()


def _line(error: BaseException) -> str:
    """Where in the template an error happened; Jinja rewrites the traceback to the template's lines."""
    at, line = error.__traceback__, 0
    while at is not None:
        if at.tb_frame.f_code.co_filename == "<template>":
            line = at.tb_lineno
        at = at.tb_next
    return f" at line {line}" if line else ""


def _size(value: Any) -> int:
    """Characters in nested messages, and one for every value."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, Mapping):
        return sum(_size(v) + len(str(k)) for k, v in value.items()) + 1
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value)) + 1
    return 1
