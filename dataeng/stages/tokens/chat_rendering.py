"""Rendering conversations by chat templates, as `transformers` does, with special tokens that nobody can forge.

A template is Jinja, as in ``tokenizer_config.json``. What `transformers.utils.chat_template_utils` (Apache-2.0) gives
it, it has here: a sandbox in which nothing can be changed, blocks without their white space, ``break`` and
``continue``, ``tojson`` without HTML escapes, ``raise_exception``, ``strftime_now`` and ``{% generation %}``.

**Only what the template itself writes out can become a special token.** Before a template is compiled, special tokens
are marked in its own literals; ``bos_token`` and the like are handed to it marked. A message's text never is, so
``<|im_end|>`` in an answer stays eight letters and some signs, whatever the template does with it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

from dataeng.errors import ConfigError
from dataeng.stages.tokens.marked_text import (
    SPECIAL_STOP,
    TRAINED_START,
    TRAINED_STOP,
    mark_special,
    special_pattern,
    without_marks,
)

Message = dict[str, Any]
#: What every template is tried on.
PROBE: list[Message] = [
    {"role": "user", "content": "What is two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And one more?"},
    {"role": "assistant", "content": "Five."},
]


class TemplateError(Exception):
    """A template refuses a conversation, or fails on it. The message says in which line."""


class ChatRenderer:
    """A chat template, compiled.

    Args:
      source: Jinja.
      name: what messages call it: a file, or a name.
      special: the tokenizer's special tokens.
      variables: what the template may use besides the messages (``bos_token``, ``enable_thinking``, …).
      today: what ``strftime_now`` tells; None lets a template fail that asks.

    Raises:
      ConfigError: the template is not valid, fails on a simple conversation, or makes up special tokens of parts.
    """

    def __init__(
        self,
        source: str,
        name: str,
        special: Sequence[str],
        variables: Mapping[str, Any] | None = None,
        today: datetime.date | None = None,
    ) -> None:
        self.name, self.today = name, today
        self._pattern = special_pattern(special)
        self._plain_variables = dict(variables or {})
        self._variables = {key: self._mark(value) for key, value in self._plain_variables.items()}
        self.has_generation = _has_generation(source)
        try:
            self._template = self._compile(source, marks=True)
            self._plain = self._compile(source, marks=False)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{name}, line {error.lineno}: {error.message}") from error
        self._check()

    def render(self, messages: list[Message]) -> str:
        """Returns a conversation as marked text (see `dataeng.stages.tokens.marked_text`).

        What is trained on is what the template encloses in ``{% generation %}``. One that has no such block is rendered
        once more up to each assistant's turn and once with it; what came with it, up to its end token, is the turn.

        Raises:
          TemplateError: the template raised an exception; or its turns depend on what follows them.
        """
        whole = self._run(self._template, messages, self._variables)
        if self.has_generation:
            return whole
        for index in reversed([i for i, message in enumerate(messages) if message.get("role") == "assistant"]):
            before = self._run(self._template, messages[:index], self._variables, add_generation_prompt=True)
            after = whole
            if index + 1 < len(messages):
                after = self._run(self._template, messages[: index + 1], self._variables)
            if not (after.startswith(before) and whole.startswith(after)):
                raise TemplateError(
                    f"turn {index + 1} looks different in the whole conversation; enclose what is to be trained on in "
                    "{% generation %} … {% endgeneration %}"
                )
            stop = _end_of_turn(after, len(before))
            whole = whole[: len(before)] + TRAINED_START + whole[len(before) : stop] + TRAINED_STOP + whole[stop:]
        return whole

    def render_plain(self, messages: list[Message], *, add_generation_prompt: bool = False) -> str:
        """Returns a conversation as `transformers` renders it.

        Raises:
          TemplateError: the template raised an exception.
        """
        text = self._run(self._plain, messages, self._plain_variables, add_generation_prompt=add_generation_prompt)
        return text.replace(TRAINED_START, "").replace(TRAINED_STOP, "")

    def _check(self) -> None:
        try:
            self._check_marks(self.render_plain(PROBE), self.render(PROBE))
        except TemplateError as error:
            raise ConfigError(f"{self.name} fails on a conversation of two questions and answers: {error}") from error
        system: Message = {"role": "system", "content": "Be brief."}
        try:
            plain, marked = self.render_plain([system, *PROBE]), self.render([system, *PROBE])
        except TemplateError:
            return  # many templates know no system messages; conversations with one are then refused, each by itself
        self._check_marks(plain, marked)

    def _check_marks(self, plain: str, marked: str) -> None:
        """Compares with what is special in the text as `transformers` renders and then encodes it."""
        found = marked.replace(TRAINED_START, "").replace(TRAINED_STOP, "")
        if found == self._mark(plain):
            return
        if without_marks(found) == plain and self._pattern is not None:
            rest = self._pattern.findall(self._unmarked(found))
            raise ConfigError(
                f"{self.name} puts the special token '{rest[0] if rest else '?'}' together from parts, so that it "
                "cannot be told from what a user wrote. Write it out in the template."
            )
        raise ConfigError(f"{self.name} looks at special tokens in its own text in a way that is not supported.")

    def _mark(self, value: Any) -> Any:
        if not isinstance(value, str) or self._pattern is None:
            return value
        return self._pattern.sub(lambda found: mark_special(found[0]), value)

    def _unmarked(self, marked: str) -> str:
        """Returns a text without its marked tokens."""
        assert self._pattern is not None
        return "".join(piece.rpartition(SPECIAL_STOP)[2] for piece in marked.split(mark_special("")[0]))

    def _compile(self, source: str, *, marks: bool) -> jinja2.Template:
        environment = _Environment(self._mark if marks else lambda text: text)
        environment.globals["strftime_now"] = self._strftime_now
        return environment.from_string(source)

    def _strftime_now(self, pattern: str) -> str:
        if self.today is None:
            raise jinja2.TemplateError(
                "the template writes today's date, so that packs would differ from day to day; set `today`, "
                "e.g. today: 2026-01-31"
            )
        return self.today.strftime(pattern)

    def _run(
        self,
        template: jinja2.Template,
        messages: list[Message],
        variables: Mapping[str, Any],
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        context = {"tools": None, "documents": None, **variables}
        try:
            return template.render(messages=messages, add_generation_prompt=add_generation_prompt, **context)
        except Exception as error:  # a template can raise anything: a missing key, a sum of a number and a string
            line = _line_of(error)
            raise TemplateError(f"{f'line {line}: ' if line else ''}{error or type(error).__name__}") from error


def _end_of_turn(text: str, start: int) -> int:
    """Returns where a turn from ``start`` to the end of ``text`` ends: behind its end token, or before white space."""
    at = text.rfind(SPECIAL_STOP, start) + 1
    return at if at > start and not text[at:].strip() else max(start, len(text.rstrip()))


def _has_generation(source: str) -> bool:
    environment = _Environment(lambda text: text)
    try:
        return any(kind == "name" and value == "generation" for _, kind, value in environment.lex(source))
    except jinja2.TemplateSyntaxError:
        return False  # compiling says what is wrong


def _line_of(error: BaseException) -> int | None:
    """Returns the line of the template in which something was raised."""
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


class _Generation(jinja2.ext.Extension):
    """``{% generation %} … {% endgeneration %}``: what an assistant wrote, and is trained on."""

    tags: set[str] = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_trained"), [], [], body).set_lineno(line)

    def _trained(self, caller: Callable[[], str]) -> str:
        return f"{TRAINED_START}{caller()}{TRAINED_STOP}"


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox of `transformers`; ``mark`` is applied to all text that a template has written out."""

    def __init__(self, mark: Callable[[str], str]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
        self._mark_literals = mark
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        for text in tree.find_all(jinja2.nodes.TemplateData):
            text.data = self._mark_literals(text.data)
        for constant in tree.find_all(jinja2.nodes.Const):
            if isinstance(constant.value, str):
                constant.value = self._mark_literals(constant.value)
        return tree


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
