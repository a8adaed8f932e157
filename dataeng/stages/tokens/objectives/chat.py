"""Conversations: the tokens that a chat template makes of them, trained on where assistants speak."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, PrivateAttr

from dataeng.errors import ConfigError, FormatError
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.marked_text import SPECIAL_START, mark_special, training_spans
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.objective import Objective
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer

Bits = npt.NDArray[np.uint8]


class MarkedTextEncoder:
    """Encodes marked texts (`dataeng.stages.tokens.marked_text`) by a ``tokenizer.json``.

    It loads the tokenizer with its special tokens renamed to how they are marked. So a marked token is found as a
    special one always is, with all that the tokenizer does around it, while its plain name is text like any other.
    A text without plain names of special tokens gets the ids that `transformers` gives it.
    """

    def __init__(self, content: bytes, special: tuple[str, ...]) -> None:
        from tokenizers import Tokenizer

        description = json.loads(content)
        renamed = _rename_special(description, set(special))
        self.tokenizer: Any = Tokenizer.from_str(json.dumps(description))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        known: dict[str, int] = self.tokenizer.get_vocab(with_added_tokens=True)
        size = max(known.values()) + 1
        #: What an id of the renamed tokenizer is in the one that was given: added tokens may have got other numbers.
        self.ids = np.arange(size, dtype=np.int64)
        self.special = np.zeros(size, np.bool_)
        for name, (original, is_special) in renamed.items():
            self.ids[known[name]], self.special[known[name]] = original, is_special

    def encode(self, texts: list[str]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Returns for every text its ids, [tokens], and where they come from, [tokens, start and stop] in characters.

        Raises:
          FormatError: a marked token was not found as such, or another one was.
        """
        found = []
        # A Python step per document: the library hands out ids and places as lists. With it, and with places, encoding
        # takes 1.5 times what it takes without (tests/benchmarks/objectives.py).
        for text, encoding in zip(texts, self.tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
            ids = np.array(encoding.ids, np.int64)
            if int(self.special[ids].sum()) != text.count(SPECIAL_START):
                raise FormatError(
                    f"the tokenizer finds {int(self.special[ids].sum())} special tokens in a conversation that has "
                    f"{text.count(SPECIAL_START)}: {text[:200]!r}"
                )
            found.append((self.ids[ids], np.array(encoding.offsets, np.int64).reshape(-1, 2)))
        return found


def _rename_special(description: dict[str, Any], special: set[str]) -> dict[str, tuple[int, bool]]:
    """Marks the special tokens in a tokenizer.json. Returns id and whether special of all added tokens, by new name."""
    renamed = {}
    for token in description["added_tokens"]:
        name, is_special = token["content"], bool(token.get("special"))
        if is_special:
            token["content"], token["normalized"] = mark_special(name), False
        renamed[token["content"]] = (token["id"], is_special)
    # A model must not find a name in a text by itself, as Unigram does. The token for unknown text is no such name.
    model = description["model"]
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {mark_special(k) if k in special else k: v for k, v in model["vocab"].items()}
    elif isinstance(model.get("vocab"), list):
        model["vocab"] = [[mark_special(k) if k in special else k, score] for k, score in model["vocab"]]
    description["post_processor"] = None  # it would move the places that tokens come from
    return renamed


def trained_tokens(places: npt.NDArray[np.int64], spans: list[tuple[int, int]]) -> Bits:
    """Returns 1 for tokens that lie in a span, even if in part: uint8 [tokens].

    Args:
      places: [tokens, start and stop] in characters, ascending.
      spans: disjoint, ascending.
    """
    mask = np.zeros(len(places), np.uint8)
    for start, stop in spans:
        first = np.searchsorted(places[:, 1], start, side="right")
        mask[first : np.searchsorted(places[:, 0], stop, side="left")] = 1
    return mask


class Chat(Objective):
    """Conversations as ``apply_chat_template`` rendered them, trained on where assistants speak.

    EOS is added unless the template has written it. It is trained on if the token before it is: after an answer that
    has no end token of its own, EOS is that. BOS is added unless the template has written it.
    """

    masks: ClassVar[bool] = True

    kind: Literal["chat"] = "chat"
    max_tokens: int | None = Field(
        default=None, ge=8, description="Longer conversations are cut to so many tokens, EOS included"
    )
    cut: Literal["turn", "token"] = Field(
        default="turn", description="Behind the last assistant's turn that fits (if one does), or at the last token"
    )
    _encoder: MarkedTextEncoder | None = PrivateAttr(default=None)

    def columns(self) -> tuple[str, ...]:
        return ("text", "chat")

    def prepare(self, tokenizer: PackTokenizer, ends: Ends) -> None:
        if tokenizer.path.suffix != ".json":
            raise ConfigError(
                f"the objective 'chat' needs a tokenizer.json, found {tokenizer.path}; convert the model first."
            )
        self._encoder = MarkedTextEncoder(tokenizer.path.read_bytes(), tokenizer.vocabulary.special)

    def encode(self, rows: pl.DataFrame, tokenizer: PackTokenizer, ends: Ends) -> Encoded:
        assert self._encoder is not None
        chats = rows.get_column("chat")
        if chats.null_count():
            missing = rows.filter(chats.is_null())
            raise FormatError(
                f"{missing.height} documents (the first: {missing.item(0, 'id')}) have no chat; let "
                "apply_chat_template see all documents of the domain."
            )
        spans = [training_spans(chat) for chat in chats.to_list()]
        documents = [
            self._with_ends(ids, trained_tokens(places, span.trained), ends)
            for (ids, places), span in zip(self._encoder.encode([span.text for span in spans]), spans, strict=True)
        ]
        empty = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        return Encoded(
            np.concatenate([empty[0], *(ids for ids, _ in documents)]).astype(tokenizer.dtype),
            np.array([len(ids) for ids, _ in documents], np.int32),
            np.concatenate([empty[1], *(mask for _, mask in documents)]),
        )

    def _with_ends(self, ids: npt.NDArray[np.int64], mask: Bits, ends: Ends) -> tuple[npt.NDArray[np.int64], Bits]:
        if ends.bos_id is not None and (not len(ids) or ids[0] != ends.bos_id):
            ids, mask = np.insert(ids, 0, ends.bos_id), np.insert(mask, 0, 0)
        if self.max_tokens is not None and len(ids) + self._lacks_eos(ids, ends) > self.max_tokens:
            ids, mask = self._shortened(ids, mask, self.max_tokens - (ends.eos_id is not None))
            if ends.eos_id is not None:  # the conversation goes on; a model must not learn that it ends here
                ids, mask = np.append(ids, ends.eos_id), np.append(mask, np.uint8(0))
        elif ends.eos_id is not None and self._lacks_eos(ids, ends):
            ids, mask = np.append(ids, ends.eos_id), np.append(mask, mask[-1:] if len(mask) else np.uint8(0))
        return ids, mask

    @staticmethod
    def _lacks_eos(ids: npt.NDArray[np.int64], ends: Ends) -> bool:
        return ends.eos_id is not None and (not len(ids) or int(ids[-1]) != ends.eos_id)

    def _shortened(self, ids: npt.NDArray[np.int64], mask: Bits, limit: int) -> tuple[npt.NDArray[np.int64], Bits]:
        if self.cut == "turn":
            turn_ends = np.flatnonzero(np.diff(mask.astype(np.int8), append=np.int8(0)) == -1) + 1
            fitting = turn_ends[turn_ends <= limit]
            limit = int(fitting[-1]) if len(fitting) else limit
        return ids[:limit], mask[:limit]
