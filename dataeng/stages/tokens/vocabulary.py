"""A tokenizer file's vocabulary: which ids there are, which of them are special, and how to spell those out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer.

    Attributes:
      ids: token to id, all of them.
      size: one more than the largest id: ids may have gaps, and embeddings need a row for the largest one.
      special: names of the tokens that control a model. No text may become one. (The token for unknown text is not
        among them: text becomes that rightly.)
      added: names of tokens besides, which are looked for in texts before the model sees them.
      unmerged: names of tokens of BPE that no merge makes: no text becomes them, unless a library cuts corners.
      byte_level: every token is written in the 256 characters that stand for bytes (GPT-2's table).
      unknown_id: what stands for text without a token, where there is one.
    """

    ids: Mapping[str, int]
    size: int
    special: tuple[str, ...]
    added: tuple[str, ...] = ()
    unmerged: tuple[str, ...] = ()
    byte_level: bool = False
    unknown_id: int | None = None

    def spell(self, text: str) -> list[int] | None:
        """Returns the ids of a text, one character (or byte) after the other; None where there are none for it."""
        spelled: list[int] = []
        if self.byte_level:
            table = byte_characters()
            text = "".join(table[byte] for byte in text.encode())
        for character in text:
            if character in self.ids:
                spelled.append(self.ids[character])
                continue
            fallback = [self.ids.get(f"<0x{byte:02X}>", self.unknown_id) for byte in character.encode()]
            if self.unknown_id in fallback:
                fallback = [self.unknown_id]
            spelled += [token for token in fallback if token is not None]
            if None in fallback:
                return None
        return spelled

    def text_of(self, token: str) -> str:
        """Returns the text that a token stands for, with U+FFFD for bytes that are no text by themselves."""
        if not self.byte_level:
            return token.replace("▁", " ")
        codes = _byte_values()
        if not set(token) <= codes.keys():  # added as a whole
            return token
        return bytes(codes[character] for character in token).decode(errors="replace")

    def special_table(self, *more: int) -> npt.NDArray[np.bool_]:
        """Returns for every id, [size], whether text must not become it; ``more`` ids are added."""
        table = np.zeros(self.size, np.bool_)
        table[[self.ids[token] for token in self.special]] = True
        table[list(more)] = True
        return table


def byte_characters() -> list[str]:
    """Returns the character that stands for each of the 256 bytes in byte-level BPE.

    Printable Latin-1 characters stand for themselves, the others are moved up to U+0100. After GPT-2's encoder.py,
    ``bytes_to_unicode``.
    """
    kept = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    moved = iter(range(256, 512))
    return [chr(byte if byte in kept else next(moved)) for byte in range(256)]


@lru_cache
def _byte_values() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


def vocabulary_of_tokenizer_json(tokenizer: Any, content: bytes) -> Vocabulary:
    """Returns the vocabulary of a loaded `tokenizers.Tokenizer` and the file it came from."""
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    description = json.loads(content)
    model = description["model"]
    unknown = model.get("unk_token")
    unknown_id = model["unk_id"] if model.get("unk_id") is not None else ids.get(unknown) if unknown else None
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    return Vocabulary(
        ids=ids,
        size=max(ids.values(), default=-1) + 1,
        special=tuple(token.content for token_id, token in added if token.special and token_id != unknown_id),
        added=tuple(token.content for _, token in added if not token.special),
        unmerged=_unmerged(model) if model["type"] == "BPE" else (),
        byte_level="ByteLevel" in json.dumps([description.get("pre_tokenizer"), description.get("decoder")]),
        unknown_id=unknown_id,
    )


def _unmerged(model: dict[str, Any]) -> tuple[str, ...]:
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    made = {"".join(pair) for pair in pairs}
    return tuple(token for token in model["vocab"] if len(token) > 1 and token not in made)


def vocabulary_of_sentencepiece(processor: Any) -> Vocabulary:
    """Returns the vocabulary of a loaded `sentencepiece.SentencePieceProcessor`."""
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(index) for index in range(size)]
    return Vocabulary(
        ids={piece: index for index, piece in enumerate(pieces)},
        size=size,
        special=tuple(piece for index, piece in enumerate(pieces) if processor.is_control(index)),
        unknown_id=processor.unk_id(),
    )
