from __future__ import annotations

import pytest

from dataeng.kernels import characters
from dataeng.kernels.characters import ALPHA, LOWER, PUNCTUATION, SPACE, TERMINAL, UPPER, class_table


def test_every_code_point_has_pythons_classes() -> None:
    table = class_table()
    for code_point in range(0x110000):
        c, bits = chr(code_point), int(table[code_point])
        assert bool(bits & SPACE) == c.isspace(), hex(code_point)
        assert bool(bits & ALPHA) == c.isalpha(), hex(code_point)
        if c.isalpha():
            assert bool(bits & LOWER) == (not c.isupper()), hex(code_point)
            assert bool(bits & UPPER) == (not c.islower()), hex(code_point)


def test_no_class_beyond_unicode() -> None:
    assert not class_table()[0x110000:].any()


def test_punctuation_is_datatroves() -> None:
    peer = pytest.importorskip("datatrove.utils.text")
    assert set(characters.DATATROVE_PUNCTUATION) == set(peer.PUNCTUATION)
    assert set(characters.DATATROVE_TERMINAL) == peer.TERMINAL_PUNCTUATION
    table = class_table()
    assert {i for i in range(0x110000) if table[i] & PUNCTUATION} == {ord(c) for c in peer.PUNCTUATION_SET}
    assert {i for i in range(0x110000) if table[i] & TERMINAL} == {ord(c) for c in peer.TERMINAL_PUNCTUATION}


def test_affix_characters_are_spacys() -> None:
    peer = pytest.importorskip("spacy.lang.char_classes")

    def single(listed: list[str]) -> set[str]:
        return {c for c in (entry.replace("\\", "") for entry in listed) if len(c) == 1}

    assert set(characters.SPACY_PUNCTUATION) == single(peer.LIST_PUNCT)
    assert set(characters.SPACY_QUOTES) == single(peer.LIST_QUOTES)
    assert set(characters.SPACY_CURRENCY) == single(peer.LIST_CURRENCY)
