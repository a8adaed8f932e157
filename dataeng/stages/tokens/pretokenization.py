r"""Where a text is cut before anything is merged: the regular expressions of published tokenizers, as presets.

Each is kept as its source has it; only the part for digits can be replaced. The same rules as a scanner, for
training, are in `dataeng.kernels.pretokens`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

    from dataeng.kernels.pretokens import Pieces

PresetName = Literal["gpt2", "gpt4", "llama3", "qwen", "bert"]
Digits = Literal["individual", "groups_of_three"]


class Preset(NamedTuple):
    """An expression with a gap for the digits, what its source has there, and where it comes from."""

    expression: str
    digits: str
    source: str


#: tiktoken writes it thus from its first release to 0.3; the later, faster spelling cuts trailing blanks otherwise.
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRESETS: dict[str, Preset] = {
    "gpt2": Preset(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r" ?\p{N}+",
        "openai/gpt-2 (MIT), src/encoder.py",
    ),
    "gpt4": Preset(_CL100K, r"\p{N}{1,3}", "openai/tiktoken 0.3 (MIT), tiktoken_ext/openai_public.py, cl100k_base"),
    "llama3": Preset(_CL100K, r"\p{N}{1,3}", "meta-llama/llama3, llama/tokenizer.py, pat_str"),
    "qwen": Preset(_CL100K, r"\p{N}", "QwenLM/Qwen (Qwen 1 to 3), tokenization_qwen.py, PAT_STR"),
}
"""``bert`` is no expression: white space is left out and every sign of punctuation stands alone."""

_MOST_DIGITS = {r" ?\p{N}+": 0, r"\p{N}": 1, r"\p{N}{1,3}": 3}
_CHOSEN_DIGITS = {"individual": r"\p{N}", "groups_of_three": r"\p{N}{1,3}"}

#: Letters, numbers and spaces all lie below; above are tags, variation selectors and private characters.
_LAST_PLANE = 0x40000


def expression(preset: str, digits: Digits | None = None) -> str:
    """Returns the regular expression of a preset, with its own digits or others."""
    return PRESETS[preset].expression.replace("DIGITS", _digits(preset, digits))


def _digits(preset: str, digits: Digits | None) -> str:
    return _CHOSEN_DIGITS[digits] if digits else PRESETS[preset].digits


def pre_tokenizer(preset: str, digits: Digits | None, byte_level: bool) -> Any:
    """Returns what cuts texts as the preset says when the tokenizer is used (of ``tokenizers.pre_tokenizers``)."""
    from tokenizers import Regex, pre_tokenizers

    if preset == "bert":
        return pre_tokenizers.BertPreTokenizer()
    if byte_level and preset == "gpt2" and digits is None:  # one step, known to every faster encoder
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    split = pre_tokenizers.Split(Regex(expression(preset, digits)), "isolated")
    if not byte_level:
        return split
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def count(texts: pl.Series, preset: str, digits: Digits | None = None) -> Pieces:
    """Returns the different pieces of all texts and how often each is there."""
    from dataeng.kernels.pretokens import BERT, CL100K, GPT2, count_pieces
    from dataeng.kernels.text import text_buffers

    if preset == "bert":
        return count_pieces(text_buffers(texts), bert_classes(), BERT)
    style = GPT2 if preset == "gpt2" else CL100K
    return count_pieces(text_buffers(texts), character_classes(), style, _MOST_DIGITS[_digits(preset, digits)])


@functools.cache
def character_classes() -> NDArray[np.uint8]:
    r"""Returns which characters are ``\p{L}``, ``\p{N}`` and ``\s``, as class bits per code point.

    The expressions' own library is asked, so that training cuts as encoding will, whatever version of Unicode it has.
    """
    from tokenizers import Regex, pre_tokenizers

    from dataeng.kernels.pretokens import LETTER, NEWLINE, NUMBER, OTHER, SPACE
    from dataeng.kernels.text import CODE_POINT_LIMIT

    table = np.full(CODE_POINT_LIMIT, OTHER, np.uint8)
    alternatives = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}+|\s+"), "isolated")
    runs = [run for run, _ in alternatives.pre_tokenize_str("".join(map(chr, _code_points())))]
    for pattern, bit in ((r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)):
        matches = pre_tokenizers.Split(Regex(pattern), "removed")
        for run in runs:
            if not matches.pre_tokenize_str(run[0]):
                table[[ord(character) for character in run]] = bit
    table[[ord("\r"), ord("\n")]] |= np.uint8(NEWLINE)
    table.flags.writeable = False
    return table


@functools.cache
def bert_classes() -> NDArray[np.uint8]:
    """Returns which characters BERT's pre-tokenizer leaves out, isolates, or keeps together, as class bits."""
    from tokenizers import pre_tokenizers

    from dataeng.kernels.pretokens import OTHER, PUNCTUATION, SPACE
    from dataeng.kernels.text import CODE_POINT_LIMIT

    codes = np.array(_code_points())
    table = np.full(CODE_POINT_LIMIT, OTHER, np.uint8)
    # Between letters, a character is a piece of its own (punctuation), part of a larger one, or nowhere (space).
    pieces = pre_tokenizers.BertPreTokenizer().pre_tokenize_str("".join(f"a{chr(code)}" for code in codes))
    starts, ends = np.array([place for _, place in pieces]).T
    in_piece = np.zeros(2 * len(codes) + 1, np.int64)
    np.add.at(in_piece, starts, 1)
    np.add.at(in_piece, ends, -1)
    table[codes[np.cumsum(in_piece)[1:-1:2] == 0]] = SPACE
    alone = starts[(ends - starts == 1) & (starts % 2 == 1)]
    table[codes[alone // 2]] = PUNCTUATION
    table.flags.writeable = False
    return table


def _code_points() -> list[int]:
    return [code for code in range(_LAST_PLANE) if not 0xD800 <= code < 0xE000]
