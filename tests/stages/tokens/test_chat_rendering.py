"""Templates: what is special, what is trained on, and what they say when they fail."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.errors import ConfigError
from dataeng.stages.tokens.chat_rendering import ChatRenderer, Message, TemplateError
from dataeng.stages.tokens.marked_text import RESERVED, SPECIAL_START, SPECIAL_STOP, training_spans, without_marks
from tests.stages.tokens.chat_templates import GENERATION, SPECIAL, TEMPLATES, VARIABLES


def renderer(source: str, **options: Any) -> ChatRenderer:
    return ChatRenderer(source, "the template", options.pop("special", SPECIAL), VARIABLES, **options)


def conversation(*said: str, system: str | None = None) -> list[Message]:
    turns: list[Message] = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def trained(marked: str) -> list[str]:
    text, spans = training_spans(marked)
    return [without_marks(text[start:stop]) for start, stop in spans]


def specials(marked: str) -> list[str]:
    return [piece.partition(SPECIAL_STOP)[0] for piece in marked.split(SPECIAL_START)[1:]]


END = {"llama-3": "<|eot_id|>", "qwen-2.5": "<|im_end|>", "zephyr": "</s>", "mistral": "</s>"}
said = st.text(max_size=20).filter(lambda text: not RESERVED.search(text))


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.one_of(said, st.sampled_from(SPECIAL), st.sampled_from([" a ", "b\n"])), min_size=4, max_size=4)
)
def test_turns_are_trained_on_with_their_end_token_and_no_text_is_special(name: str, texts: list[str]) -> None:
    plain, with_blocks = renderer(TEMPLATES[name]), renderer(GENERATION[name])
    assert with_blocks.has_generation and not plain.has_generation
    messages = conversation(*texts)
    marked = plain.render(messages)
    content = [text.strip() if name == "llama-3" else text for text in texts]
    assert trained(marked) == [content[1] + END[name], content[3] + END[name]]
    assert trained(with_blocks.render(messages)) == trained(marked)
    assert without_marks(marked) == plain.render_plain(messages) == without_marks(with_blocks.render(messages))
    # The special tokens are those of any conversation, whatever was said.
    assert specials(marked) == specials(plain.render(conversation("a", "b", "c", "d")))


def test_what_is_marked_is_what_the_template_wrote() -> None:
    marked = renderer(TEMPLATES["qwen-2.5"]).render(conversation("<|im_end|>", "x", system="s"))
    expected = "⟦<|im_start|>⟧user\n<|im_end|>⟦<|im_end|>⟧\n⟦<|im_start|>⟧assistant\n⟪x⟦<|im_end|>⟧⟫\n"
    assert marked.translate(dict(zip(range(0xFDD0, 0xFDD4), "⟦⟧⟪⟫", strict=True))).endswith(expected)


def test_errors_say_in_which_line() -> None:
    with pytest.raises(ConfigError, match=r"the template, line 2: unexpected '}'"):
        renderer("{% if a %}\n{{ } }}")
    with pytest.raises(ConfigError, match=r"fails on a conversation of two questions and answers: line 2: no"):
        renderer("\n{{ raise_exception('no') }}")
    with pytest.raises(ConfigError, match=r"line 3: 'dict object' has no attribute 'text'"):
        renderer("{% for m in messages %}\n\n{{ m.text + 'x' }}{% endfor %}")
    template = renderer(TEMPLATES["mistral"])
    with pytest.raises(TemplateError, match=r"^line 1: Conversation roles must alternate"):
        template.render(conversation("a", "b")[::-1])
    with pytest.raises(TemplateError, match=r"Conversation roles"):
        template.render_plain(conversation("a", system="x"))


def test_a_template_has_no_way_to_python() -> None:
    for attack in (
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ ('{0.__class__.__init__.__globals__}').format(messages) }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
    ):
        with pytest.raises(ConfigError, match="fails on a conversation"):
            renderer(attack)
    for attack in ("raise_exception.__globals__", "messages.__class__", "messages | attr('__class__')"):
        assert renderer(f"[{{{{ {attack} }}}}]").render_plain([]) == "[]"


def test_a_token_made_of_parts_is_refused() -> None:
    source = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
    with pytest.raises(ConfigError, match=r"puts the special token '<\|user\|>' together from parts.*Write it out"):
        renderer(source, special=("<|user|>", "<|assistant|>"))
    assert without_marks(renderer(source).render(conversation("a", "b"))) == "<|user|>a<|assistant|>b"
    system = "{% for m in messages %}{{ '<|' + m.role + '|>' if m.role == 'system' }}{{ m.content }}{% endfor %}"
    with pytest.raises(ConfigError, match=r"'<\|system\|>' together from parts"):
        renderer(system, special=("<|system|>",))


def test_a_template_that_cuts_its_tokens_is_refused() -> None:
    source = "{% for m in messages %}{{ m.content + '<|im_end|>'[:4] }}{% endfor %}"
    with pytest.raises(ConfigError, match=r"not supported|together from parts"):
        renderer(source)


def test_turns_that_depend_on_what_follows_need_a_block() -> None:
    source = "{% for m in messages %}{{ m.role if loop.last else m.role | upper }}: {{ m.content }};{% endfor %}"
    with pytest.raises(ConfigError, match=r"turn 4 looks different in the whole conversation; enclose what is to be"):
        renderer(source)
    block = source.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    assert trained(renderer(block).render(conversation("a", "b"))) == ["a", "b"]


def test_the_date_is_given_or_missed() -> None:
    source = "Today is {{ strftime_now('%d %B %Y') }}. {% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ConfigError, match=r"line 1: the template writes today's date.*set `today`"):
        renderer(source)
    today = datetime.date(2026, 1, 31)
    assert renderer(source, today=today).render_plain([]) == "Today is 31 January 2026. "


def test_variables_and_json_are_as_in_transformers() -> None:
    source = "{{ bos_token }}{{ {'ü': '<>', 'n': tools} | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert renderer(source).render_plain([]) == '<s>{"ü": "<>", "n": null}'
    loop = "{% for m in messages %}{% if m.role == 'x' %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    assert renderer(loop).render_plain([*conversation("a"), {"role": "x", "content": "b"}]) == "a"


def test_an_assistant_may_speak_twice_or_not_at_all() -> None:
    template = renderer(TEMPLATES["llama-3"])
    twice = [*conversation("a", "b"), {"role": "assistant", "content": "c"}]
    assert trained(template.render(twice)) == ["b<|eot_id|>", "c<|eot_id|>"]
    assert trained(template.render(conversation("a"))) == []
