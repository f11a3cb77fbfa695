"""The Jinja environment for chat templates: transformers' dialect, in a sandbox with a budget.

A template is a program out of a foreign file. Jinja's immutable sandbox keeps it from Python's insides and
from changing what it is given, but lets it loop for hours and fill the memory ("x" * 10**12, a ~ a in loops).
So every loop, call, filter, operator and literal passes through a budget of steps, text and time: operators
and calls by the sandbox's own hooks, the rest by a rewriting of the syntax tree before it is compiled.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any

from jinja2 import TemplateError as JinjaError
from jinja2 import ext, nodes, pass_context
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SECONDS = 10.0
_MAX_NUMBER_BITS = 4096
# Field widths that a template has no honest use for: %999999d, %*d, {:999999}, {:{}}.
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(?:\d{6}|\*)")
_WIDE_FORMAT = re.compile(r":[^{}]*(?:\d{6}|\{)")


class Stopped(JinjaError):
    """The template used up its budget."""


class Budget:
    """What one rendering may still use."""

    def __init__(self, max_length: int, steps: int, max_nodes: int) -> None:
        """max_length: characters in one text; steps: iterations, calls, filters and operators;
        max_nodes: values in one container, with those nested in it."""
        self.max_length = max_length
        self.left_steps = steps
        self.max_nodes = max_nodes
        self.left_length = 16 * max_length  # characters and items of all values together
        self.deadline = time.monotonic() + MAX_SECONDS

    def step(self, n: int = 1) -> None:
        """Account for n steps."""
        self.left_steps -= n
        if self.left_steps < 0:
            raise Stopped("it takes too many steps")
        if time.monotonic() > self.deadline:
            raise Stopped(f"it takes more than {MAX_SECONDS:.0f} seconds")

    def grow(self, length: int) -> None:
        """Account for a text or list of this length, before it is made where that can be known."""
        self.left_length -= length
        if length > self.max_length or self.left_length < 0:
            raise Stopped("it makes too much text")

    def value(self, value: Any) -> Any:
        """Account for a finished value, and return it."""
        if isinstance(value, (str, bytes)):
            self.grow(len(value))
        elif isinstance(value, (list, tuple, dict)):
            self.grow(len(value))
            self._weigh(value)
        return value

    def _weigh(self, value: Any) -> None:
        """Refuse containers that would be huge if written out: [a, a] where a is [b, b] where b is ..."""
        limit = 16 * self.max_length
        weight = count = 0
        stack = [value]
        while stack:
            item = stack.pop()
            count += 1
            weight += 1
            if isinstance(item, str):
                weight += len(item)
            elif isinstance(item, (list, tuple)):
                stack.extend(item)
            elif isinstance(item, dict):
                stack.extend(item)
                stack.extend(item.values())
            if weight > limit or count + len(stack) > self.max_nodes:
                raise Stopped("it nests too much data")
        self.step(count // 16)

    def before_call(self, name: str, owner: Any, args: Sequence[Any]) -> None:
        """Refuse calls and filters whose result would be far larger than what goes in."""
        self.step()
        numbers = [abs(a) for a in args if isinstance(a, int)]
        texts = [a for a in args if isinstance(a, str)]
        if name in ("center", "ljust", "rjust", "zfill", "batch", "slice", "to_bytes"):
            self.grow(max(numbers, default=0))
        elif name == "expandtabs" and isinstance(owner, str):
            self.grow(owner.count("\t") * max(numbers, default=8))
        elif name == "indent" and isinstance(owner, str):
            width = max([*numbers, *(len(t) for t in texts)], default=4)
            self.grow((owner.count("\n") + 1) * width)
        elif name == "tojson" and max(numbers, default=0) > 64:
            raise Stopped("it makes too much text")
        elif name == "replace" and isinstance(owner, str) and len(texts) >= 2:
            self.grow(len(owner) + owner.count(texts[0]) * len(texts[1]))
        elif name == "translate" and isinstance(owner, str):
            tables = [a for a in args if isinstance(a, dict)]
            longest = [len(v) for table in tables for v in table.values() if isinstance(v, str)]
            self.grow(len(owner) * max(longest, default=1))
        elif name == "sum" and any(isinstance(a, (list, tuple)) for a in args):
            raise Stopped("it sums lists")  # which takes time that grows with the square of their number
        elif name == "wordwrap" and isinstance(owner, str):
            self.grow(len(owner) * max([1, *(len(t) for t in texts)]))
        elif name == "join":
            sequences = [a for a in (owner, *args) if isinstance(a, (list, tuple, dict))]
            separator = max((len(a) for a in (owner, *args) if isinstance(a, str)), default=0)
            for items in sequences:
                self.grow(sum(len(i) if isinstance(i, str) else 1 for i in items) + len(items) * separator)

    def before_format(self, pattern: re.Pattern[str], template: Any) -> None:
        """Refuse very wide fields."""
        if isinstance(template, str) and pattern.search(template):
            raise Stopped("it formats a very wide field")

    def before_operator(self, operator: str, left: Any, right: Any) -> None:
        """Refuse operators whose result would be far larger than what goes in."""
        self.step()
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "*":
            if numbers:
                self._number(left.bit_length() + right.bit_length())
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, (str, bytes, list, tuple)) and isinstance(times, int):
                    self.grow(len(sequence) * max(times, 0))
        elif operator == "**" and numbers:
            self._number(left.bit_length() * max(right, 0))
        elif operator == "+" and isinstance(left, Sized) and isinstance(right, Sized):
            self.grow(len(left) + len(right))
        elif operator == "%":
            self.before_format(_WIDE_PERCENT, left)

    def _number(self, bits: int) -> None:
        if bits > _MAX_NUMBER_BITS:
            raise Stopped("it makes a number of too many digits")


budget_of: ContextVar[Budget] = ContextVar("budget_of")
"""The budget of the rendering that runs in this context. A template cannot name it."""


class _Limits(NodeTransformer):
    """Sends what the sandbox's hooks do not see through filters: loops, `~`, and literals of containers."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filter("__iterate", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        return _filter("__concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_List(self, node: nodes.List) -> nodes.Filter:
        self.generic_visit(node)
        return _filter("__value", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:
        self.generic_visit(node)
        return _filter("__value", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        return node if node.ctx == "store" else _filter("__value", node)


def _filter(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(ext.Extension):
    """{% generation %}...{% endgeneration %} marks the assistant's text for training: transparent here."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = budget_of.get()
        budget.before_operator(operator, left, right)
        return budget.value(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = budget_of.get()
        name = getattr(__obj, "__name__", "")
        owner = getattr(__obj, "__self__", None)
        budget.before_call(name, owner, [*args, *kwargs.values()])
        if isinstance(__obj, LoopContext):  # a recursive loop
            args = tuple(iterate(__context, a) for a in args)
        if name in ("format", "format_map"):
            budget.before_format(_WIDE_FORMAT, owner)
        return budget.value(super().call(__context, __obj, *args, **kwargs))

    def getattr(self, obj: Any, attribute: str) -> Any:
        self._check_format(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self._check_format(obj, argument)
        return super().getitem(obj, argument)

    @staticmethod
    def _check_format(obj: Any, attribute: Any) -> None:
        """Newer sandboxes wrap str.format, and a call no longer shows the text: look when it is taken."""
        if isinstance(obj, str) and attribute in ("format", "format_map"):
            budget_of.get().before_format(_WIDE_FORMAT, obj)


@pass_context
def iterate(context: Context, items: Any) -> Any:
    """What a loop runs over, counted beforehand."""
    if isinstance(items, Undefined):
        return items
    items = items if isinstance(items, Sized) else list(items)
    budget_of.get().step(len(items))
    return items


@pass_context
def concat(context: Context, items: list[Any]) -> str:
    """The operator `~`."""
    texts = [str(item) for item in items]
    budget_of.get().step()
    budget_of.get().grow(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def value(context: Context, made: Any) -> Any:
    """A literal list, tuple or dictionary."""
    return budget_of.get().value(made)


def limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's under the budget. It asks for the context so that no compiler runs it early."""
    wants = getattr(getattr(function, "jinja_pass_arg", None), "name", "nothing")

    @wraps(function)
    def call(context: Context, first: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = budget_of.get()
        if isinstance(first, Iterator):
            first = list(first)  # what another filter yields one by one
        if isinstance(first, (list, tuple)):
            budget.step(len(first))
        budget.before_call(name, first, [*args, *kwargs.values()])
        if name == "format":
            budget.before_format(_WIDE_PERCENT, first)
        extra = {
            "nothing": (),
            "context": (context,),
            "eval_context": (context.eval_ctx,),
            "environment": (context.environment,),
        }[wants]
        return budget.value(function(*extra, first, *args, **kwargs))

    return pass_context(call)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: Jinja's own filter would escape characters for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise JinjaError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def make_environment() -> ImmutableSandboxedEnvironment:
    """The environment that templates are compiled in with compile_template()."""
    env = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols])
    env.filters["tojson"] = _tojson
    env.filters = {name: limited(name, function) for name, function in env.filters.items()}
    env.filters.update(__iterate=iterate, __concat=concat, __value=value)
    for name in ("urlize", "xmlattr", "random"):
        del env.filters[name]
    del env.globals["lipsum"]
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = _strftime_now
    return env


def compile_template(env: ImmutableSandboxedEnvironment, source: str) -> Any:
    """A jinja2.Template whose rendering needs budget_of to be set. Raises jinja2.TemplateSyntaxError."""
    tree = _Limits().visit(env.parse(source))
    return env.template_class.from_code(env, env.compile(tree), env.make_globals(None), None)
