"""From texts to a ``tokenizer.json``: byte-level BPE, BPE with byte fallback, Unigram and WordPiece.

Texts are cut into pieces and counted once (`pretokenization.count`); every algorithm works on the counts. The files
are those of the ``tokenizers`` library, which reads them back in every program that knows Hugging Face's format.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dataeng.errors import ConfigError, InputError
from dataeng.stages.tokens import pretokenization
from dataeng.stages.tokens.special_tokens import END_OF_TEXT, SETS, UNKNOWN, expand, unknown_token

if TYPE_CHECKING:
    import polars as pl

    from dataeng.kernels.bpe_merges import Tokens
    from dataeng.kernels.pretokens import Pieces

Algorithm = Literal["byte_level_bpe", "byte_fallback_bpe", "unigram", "wordpiece"]
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
CONTINUATION = "##"

_SPECIAL_TOKENS: dict[str, tuple[str, ...]] = {
    "byte_level_bpe": (END_OF_TEXT,),
    "byte_fallback_bpe": (END_OF_TEXT,),
    "unigram": ("<unk>", END_OF_TEXT),
    "wordpiece": SETS["@bert"],
}


@dataclass(frozen=True)
class Recipe:
    """What decides a tokenizer, besides the texts. See the options of ``train_tokenizer``.

    Raises:
      ConfigError: a vocabulary without room for what must be in it, or options that do not go together.
    """

    algorithm: Algorithm = "byte_level_bpe"
    vocab_size: int = 32_000
    min_frequency: int = 2
    special_tokens: tuple[str, ...] | None = None
    pre_tokenization: pretokenization.PresetName | None = None
    digits: pretokenization.Digits | None = None
    character_coverage: float = 0.9995

    def __post_init__(self) -> None:
        if (self.preset == "bert") != (self.algorithm == "wordpiece"):
            raise ConfigError(
                f"pre_tokenization '{self.preset}' does not go with {self.algorithm}: 'bert' leaves out white space, "
                "which WordPiece expects, and from which the others could not give a text back.",
                "pre_tokenization",
            )
        if self.preset == "bert" and self.digits:
            raise ConfigError("'bert' has no rule for digits; leave out digits, or train a BPE.", "digits")
        if self.algorithm in ("unigram", "wordpiece") and unknown_token(self.specials) is None:
            raise ConfigError(
                f"{self.algorithm} needs a special token for what it does not know; add one of {', '.join(UNKNOWN)}.",
                "special_tokens",
            )
        self._check_specials()
        needed = len(self.specials) + (0 if self.algorithm == "wordpiece" else 256)
        if self.vocab_size < needed:
            raise ConfigError(
                f"vocab_size {self.vocab_size} is too small: {len(self.specials)} special tokens and "
                f"{needed - len(self.specials)} bytes need {needed}.",
                "vocab_size",
            )

    def _check_specials(self) -> None:
        """Refuses special tokens that a text could become.

        Unigram and WordPiece look whole pieces up in the vocabulary, in which special tokens are, too; a BPE gets
        there by merges only, and none leads to a special token.
        """
        found = [token for token in self.specials if len(token) == 1]
        if self.algorithm in ("unigram", "wordpiece"):
            cutter = pretokenization.pre_tokenizer(self.preset, self.digits, byte_level=False)
            found += [token for token in self.specials if len(cutter.pre_tokenize_str(token)) < 2]
        if found:
            raise ConfigError(
                f"special tokens that are also ordinary text: {', '.join(map(repr, found))}; put them into brackets, "
                "like '<pad>'.",
                "special_tokens",
            )

    @functools.cached_property
    def specials(self) -> tuple[str, ...]:
        """The special tokens, with sets replaced by what is in them."""
        named = self.special_tokens if self.special_tokens is not None else _SPECIAL_TOKENS[self.algorithm]
        return expand(named)

    @property
    def preset(self) -> str:
        """The pre-tokenization: the chosen one, or what is usual for the algorithm."""
        return self.pre_tokenization or ("bert" if self.algorithm == "wordpiece" else "gpt2")


def train_tokenizer(texts: pl.Series, recipe: Recipe) -> bytes:
    """Returns the ``tokenizer.json`` that a recipe makes of texts. The same texts in any order give the same bytes.

    Raises:
      InputError: there is no text, or it has more characters than the vocabulary has room for.
    """
    pieces = pretokenization.count(texts, recipe.preset, recipe.digits)
    if pieces.num_pieces == 0:
        raise InputError("there is no text to train a tokenizer on: every document of the sample is empty.")
    train = {
        "byte_level_bpe": _byte_level_bpe,
        "byte_fallback_bpe": _byte_fallback_bpe,
        "unigram": _unigram,
        "wordpiece": _wordpiece,
    }[recipe.algorithm]
    tokenizer = train(pieces, recipe)
    tokenizer.pre_tokenizer = pretokenization.pre_tokenizer(
        recipe.preset, recipe.digits, recipe.algorithm == "byte_level_bpe"
    )
    tokenizer.add_special_tokens(list(recipe.specials))
    return str(tokenizer.to_str(pretty=False)).encode()


@functools.cache
def byte_characters() -> tuple[str, ...]:
    """Returns the character that stands for each byte in a byte-level vocabulary (GPT-2's ``bytes_to_unicode``)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    characters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return tuple(characters[byte] for byte in range(256))


def _byte_level_bpe(pieces: Pieces, recipe: Recipe) -> Any:
    from tokenizers import Tokenizer, decoders, models

    from dataeng.kernels.bpe_merges import Words, train_merges

    characters = byte_characters()
    alphabet = sorted(characters)
    ids = {character: len(recipe.specials) + i for i, character in enumerate(alphabet)}
    of_byte = np.array([ids[character] for character in characters], np.int32)
    words = Words(of_byte[pieces.data], pieces.offsets, pieces.counts)
    pairs, tokens = train_merges(
        words, _tokens([*recipe.specials, *alphabet]), recipe.vocab_size, recipe.min_frequency, len(recipe.specials)
    )
    vocabulary = _texts(tokens)
    tokenizer = Tokenizer(models.BPE(_ids(vocabulary), _merges(vocabulary, pairs)))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_fallback_bpe(pieces: Pieces, recipe: Recipe) -> Any:
    from tokenizers import Tokenizer, decoders, models

    from dataeng.kernels.bpe_merges import train_merges
    from dataeng.stages.tokens.covered_characters import covered_characters, covered_words, numbered

    characters = numbered(pieces)
    alphabet = covered_characters(characters, recipe.character_coverage)
    reserved = [*recipe.specials, *BYTE_TOKENS]
    _check_room(recipe, len(reserved), len(alphabet))
    words = covered_words(characters, alphabet, len(reserved))
    pairs, tokens = train_merges(
        words,
        _tokens([*reserved, *map(chr, alphabet.tolist())]),
        recipe.vocab_size,
        recipe.min_frequency,
        len(reserved),
    )
    vocabulary = _texts(tokens)
    model = models.BPE(_ids(vocabulary), _merges(vocabulary, pairs), byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _wordpiece(pieces: Pieces, recipe: Recipe) -> Any:
    from tokenizers import Tokenizer, decoders, models

    from dataeng.kernels.bpe_merges import train_merges
    from dataeng.stages.tokens.covered_characters import continued_words, covered_characters, numbered

    characters = numbered(pieces)
    alphabet = covered_characters(characters, recipe.character_coverage)
    words, continued = continued_words(characters, alphabet, len(recipe.specials))
    _check_room(recipe, len(recipe.specials), len(alphabet) + len(continued))
    first = [*recipe.specials, *map(chr, alphabet.tolist())]
    first += [CONTINUATION + chr(code) for code in continued.tolist()]
    prefixes = np.zeros(len(first), np.uint8)
    prefixes[len(first) - len(continued) :] = len(CONTINUATION)
    _, tokens = train_merges(
        words, _tokens(first), recipe.vocab_size, recipe.min_frequency, len(recipe.specials), prefixes
    )
    unknown = unknown_token(recipe.specials)
    model = models.WordPiece(_ids(_texts(tokens)), unk_token=unknown, continuing_subword_prefix=CONTINUATION)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _unigram(pieces: Pieces, recipe: Recipe) -> Any:
    from tokenizers import Tokenizer, decoders, models

    from dataeng.kernels.unigram import train_unigram
    from dataeng.stages.tokens.covered_characters import covered_characters, covered_words, in_order, numbered

    characters = numbered(in_order(pieces))  # sums of floats depend on the order, which is that of the texts so far
    alphabet = covered_characters(characters, recipe.character_coverage)
    reserved = [*recipe.specials, *BYTE_TOKENS]
    _check_room(recipe, len(reserved), len(alphabet))
    words = covered_words(characters, alphabet, 0)
    found, scores = train_unigram(words, len(alphabet), recipe.vocab_size - len(reserved))
    texts = ["".join(map(chr, alphabet[symbols].tolist())) for symbols in found]
    unknown = unknown_token(recipe.specials)
    assert unknown is not None
    entries = [*((token, 0.0) for token in reserved), *zip(texts, scores.tolist(), strict=True)]
    tokenizer = Tokenizer(models.Unigram(entries, recipe.specials.index(unknown), byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _check_room(recipe: Recipe, num_reserved: int, num_characters: int) -> None:
    if num_reserved + num_characters > recipe.vocab_size:
        raise InputError(
            f"vocab_size {recipe.vocab_size} is too small for these texts: {num_reserved} special and byte tokens and "
            f"{num_characters} characters need {num_reserved + num_characters}; raise it, or lower character_coverage "
            f"({recipe.character_coverage})."
        )


def _tokens(texts: Sequence[str]) -> Tokens:
    from dataeng.kernels.bpe_merges import Tokens

    encoded = [text.encode() for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in encoded], dtype=np.int64)])
    return Tokens(np.frombuffer(b"".join(encoded), np.uint8).copy(), offsets.astype(np.int64))


def _texts(tokens: Tokens) -> list[str]:
    data, offsets = tokens.data.tobytes(), tokens.offsets.tolist()
    return [data[start:stop].decode() for start, stop in itertools.pairwise(offsets)]


def _ids(vocabulary: Sequence[str]) -> dict[str, int]:
    return {text: i for i, text in enumerate(vocabulary)}


def _merges(vocabulary: Sequence[str], pairs: NDArray[np.int32]) -> list[tuple[str, str]]:
    return [(vocabulary[left], vocabulary[right]) for left, right in pairs.tolist()]
