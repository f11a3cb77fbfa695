# ruff: noqa: E501 (templates are one line each)
"""Chat templates render as transformers renders them, and a hostile one can only fail.

tests/data/templates/expected.json holds what transformers 5.23 makes of the templates beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pyllm import chat_template
from pyllm.chat_template import ChatTemplate
from pyllm.errors import TemplateError

FOLDER = Path(__file__).parent / "data" / "templates"
EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("case", EXPECTED["cases"])
@pytest.mark.parametrize("name", EXPECTED["expected"])
def test_as_transformers(name: str, case: str) -> None:
    template = ChatTemplate((FOLDER / f"{name}.jinja").read_text("utf-8"), "<s>", "</s>")
    want = EXPECTED["expected"][name][case]
    inputs = EXPECTED["cases"][case]
    if isinstance(want, dict):
        with pytest.raises(TemplateError) as caught:
            template.render(**inputs, date_string="26 Jul 2024")
        assert want["error"] in str(caught.value)
    else:
        assert template.render(**inputs, date_string="26 Jul 2024") == want


def test_smollm2_inserts_its_system_message() -> None:
    template = ChatTemplate((FOLDER / "HuggingFaceTB-SmolLM2-135M-Instruct.jinja").read_text("utf-8"))
    assert template.render([{"role": "user", "content": "What is the capital of France?"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@dataclass
class Tokens:
    """A tokenizer with <s> and </s>."""

    bos_id: int | None = 1
    eos_id: int | None = 2

    def token_text(self, id: int, /) -> str:
        return {1: "<s>", 2: "</s>"}[id]


def test_from_metadata_and_named_templates() -> None:
    metadata: dict[str, Any] = {
        "tokenizer.chat_template": "default {{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "tokenizer.chat_template.tool_use": "tools {{ tools[0].name }}",
        "tokenizer.chat_template.rag": "rag",
        "tokenizer.chat_templates": ["tool_use", "rag"],
        "general.name": "x",
    }
    template = ChatTemplate.from_metadata(metadata, Tokens())
    assert template.render(HELLO) == "default <s>Hi</s>"
    assert template.render(HELLO, tools=[{"name": "f"}]) == "tools f"
    assert template.render(HELLO, name="rag") == "rag"
    assert template.source.startswith("default")
    with pytest.raises(TemplateError, match="no chat template 'x', only default, tool_use, rag"):
        template.render(HELLO, name="x")
    only_named = ChatTemplate.from_metadata({"tokenizer.chat_template.rag": "{{ bos_token }}rag"}, Tokens(bos_id=None))
    assert only_named.render(HELLO) == "rag"


def test_no_template() -> None:
    with pytest.raises(TemplateError, match=r"no chat template.*--raw"):
        ChatTemplate.from_metadata({"general.name": "base"}, Tokens())
    with pytest.raises(TemplateError, match="no chat template"):
        ChatTemplate.from_metadata({"tokenizer.chat_template": ""}, Tokens())


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("{{ {'b': '<é&>', 'a': [1, None]} | tojson }}", '{"b": "<é&>", "a": [1, null]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ {'a': 1} | tojson(separators=(',', ':')) }}", '{"a":1}'),
        ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "023",
        ),
        (
            "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}",
            "0TrueTrue1",
        ),
        ("a{% generation %}b{% endgeneration %}c", "abc"),
        ("{{ strftime_now('%Y') }}", str(datetime.now().year)),
        ("{{ undefined_thing }}|{{ messages[0].nothing }}|{{ tools }}", "||None"),
        (
            "{{ 'a' ~ 1 ~ none }} {{ [1] + [2] }} {{ 'ab' * 2 }} {{ '%s!' % 'x' }} {{ 2 ** 10 }}",
            "a1None [1, 2] abab x! 1024",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        (
            "{{ messages | map(attribute='role') | join(',') }}{{ ['b', 'a'] | sort | list }}",
            "user['a', 'b']",
        ),
        ("{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}{% set a, b = 1, 2 %}{{ b }}", "x12"),
        (
            "{{ 'a\nb' | indent(2) }}{{ 'x' | center(5) }}{{ '{:>3}'.format(7) }}{{ 'a-b'.split('-') }}",
            "a\n  b  x    7['a', 'b']",
        ),
        (
            "{% for i in [[1], [2]] recursive %}{% if i is iterable %}{{ loop(i) }}{% else %}{{ i }}{% endif %}{% endfor %}",
            "12",
        ),
        (
            "{% macro m(x) %}<{{ x }}{{ caller() if caller }}>{% endmacro %}{% call m(1) %}y{% endcall %}",
            "<1y>",
        ),
        (
            "{% filter upper %}abc{% endfilter %}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
            "ABC1",
        ),
        (
            "{{ ('a,b' | replace(',', ';')) ~ ('x'.replace('x', 'y')) }}{{ 'a\tb'.expandtabs(4) }}",
            "a;bya   b",
        ),
    ],
)
def test_the_dialect(source: str, want: str) -> None:
    assert ChatTemplate(source).render(HELLO) == want


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('Only user roles!') }}", r"refuses at line 1: Only user roles!$"),
        ("\n\n{{ 1 / 0 }}", r"fails at line 3: ZeroDivisionError"),
        ("{% for %}", r"not valid Jinja: .* \(line 1\)"),
        ("{{ x | nofilter }}", r"not valid Jinja: No filter named 'nofilter'"),
        ("{{ foo.bar }}", r"'foo' is undefined"),
        ("{% if 1 %}" * 300 + "{% endif %}" * 300, r"cannot be compiled"),
        ("{% include 'other' %}", r"no loader"),
        ("{{ 'x' + 1 }}", r"TypeError"),
    ],
)
def test_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ ''|attr('__class__')|string }}{{ raise_exception('no attribute') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ '{0.__class__}'.format(1).upper() or raise_exception('nothing') }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    messages = [dict(m) for m in HELLO]
    with pytest.raises(TemplateError):
        ChatTemplate(source).render(messages)
    assert messages == HELLO


HOSTILE = {
    "repeat": "{{ 'x' * 10000000000 }}",
    "repeat, turned": "{{ 10000000000 * 'x' }}",
    "repeat a list": "{{ [1] * 10000000000 }}",
    "repeat bytes": "{{ 'x'.encode() * 10000000000 }}",
    "power": "{{ 2 ** 100000000000 }}",
    "squares": "{% set ns = namespace(n=3) %}{% for i in range(60) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "long range": "{% for i in range(1000000000) %}{% endfor %}",
    "letters": "{% for c in 'a' * 4000000 %}{% for d in 'a' * 4000000 %}{% endfor %}{% endfor %}",
    "concat": "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "plus": "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "center": "{{ 'x' | center(10000000000) }}",
    "ljust": "{{ 'x'.ljust(10000000000) }}",
    "zfill": "{{ 'x'.zfill(10000000000) }}",
    "percent width": "{{ '%10000000000d' % 5 }}",
    "percent star": "{{ '%*d' | format(10000000000, 5) }}",
    "format width": "{{ '{:10000000000}'.format(5) }}",
    "format nested": "{{ '{:{}}'.format(5, 10000000000) }}",
    "format by attribute": "{{ ('{:10000000000}' | attr('format'))(5) }}",
    "format_map": "{{ '{a:10000000000}'.format_map({'a': 5}) }}",
    "to_bytes": "{{ (5).to_bytes(10000000000, 'big') }}",
    "translate": "{{ ('a' * 1000000).translate({97: 'x' * 1000000}) }}",
    "replace": "{% set a = 'a' * 1000000 %}{{ a.replace('a', a) }}",
    "replace filter": "{% set a = 'a' * 1000000 %}{{ a | replace('a', a) }}",
    "join": "{% set a = 'a' * 1000000 %}{{ ([a] * 10000) | join }}",
    "join with": "{% set a = 'a' * 1000000 %}{{ a.join(['x'] * 100000) }}",
    "join mapped": "{% set a = 'a' * 1000000 %}{{ ([a] * 60) | map('upper') | join }}",
    "indent": "{{ ('\\n' * 1000000) | indent(1000000) }}",
    "indent with": "{{ ('\\n' * 1000000) | indent('x' * 1000000) }}",
    "json": "{{ [1, 2] | tojson(indent=1000000000) }}",
    "wordwrap": "{% set a = 'a ' * 1000000 %}{{ a | wordwrap(1, wrapstring=a) }}",
    "tabs": "{{ ('\\t' * 1000000).expandtabs(1000000) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "sum": "{{ ([[1]] * 1000000) | sum(start=[]) }}",
    "endless macro": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "branching macro": "{% macro m(n) %}{% if n < 60 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    "recursive loop": "{% for i in [1] recursive %}{{ loop(range(90000)) }}{% endfor %}",
    "doubled lists": "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "doubled dicts": "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = {'a': ns.l, 'b': ns.l} %}{% endfor %}{{ ns.l }}",
    "doubled tuples": "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = (ns.l, ns.l) %}{% endfor %}{{ ns.l }}",
    "doubled calls": "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = dict(a=ns.l, b=ns.l) %}{% endfor %}{{ ns.l }}",
    "long output": "{% set a = 'a' * 4000000 %}{{ a }}{{ a }}",
    "while compiling": "{{ 'x' | center(10000000000) }}{{ 'x' | replace('x', 'y') }}",
    "a name of ours": "{% set budget_of = none %}{% set __value = none %}{{ 'x' * 10000000000 }}",
}


CHILD = """
import json, resource, sys, time
from pyllm.chat_template import ChatTemplate
from pyllm.errors import TemplateError
sources = json.load(sys.stdin)
ChatTemplate("").render([])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
results = {}
for name, source in sources.items():
    start = time.monotonic()
    try:
        outcome = "rendered " + ChatTemplate(source).render([{"role": "user", "content": "Hi"}])[:50]
    except TemplateError as e:
        outcome = f"stopped: {e}"
    except BaseException as e:
        outcome = repr(e)[:200]
    results[name] = (outcome, time.monotonic() - start)
print(json.dumps(results))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and limits on memory")
def test_hostile_templates_are_stopped() -> None:
    """Each ends in a TemplateError within seconds and 200 MB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(HOSTILE), text=True, capture_output=True, check=True
    )
    results = json.loads(done.stdout)
    assert set(results) == set(HOSTILE)
    for name, (outcome, seconds) in results.items():
        assert outcome.startswith("stopped: ") and "MemoryError" not in outcome, (name, outcome)
        assert seconds < 15, (name, seconds)


def test_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyllm import template_sandbox

    template = ChatTemplate("{% for i in range(90000) %}{{ i * i }}{% endfor %}")
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.0)
    with pytest.raises(TemplateError, match="seconds"):
        template.render(HELLO)


def test_limits_grow_with_the_messages() -> None:
    """A long chat is no attack."""
    template = ChatTemplate("{% for m in messages %}{{ '<' ~ m.role + '>' ~ m['content'] | trim }}\n{% endfor %}")
    long = [{"role": "user", "content": "x" * 1000}] * 10_000
    assert len(template.render(long)) > 10_000_000 > chat_template.MAX_OUTPUT


def test_threads_and_repetition() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    wrong: list[str] = []

    def work(text: str) -> None:
        for _ in range(200):
            if (got := template.render([{"role": "user", "content": text}])) != text:
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(str(i) * 10,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []
