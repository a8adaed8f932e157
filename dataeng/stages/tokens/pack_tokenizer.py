"""A tokenizer as packs need it: columns in, tokens of the pack's type out; no text becomes a special token."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.pack import token_dtype
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.encoders import Encoder, FastokensEncoder, Ids, SentencePieceEncoder, TokenizersEncoder
from dataeng.stages.tokens.proof import ProvedEncoder, first_difference, hard_texts
from dataeng.stages.tokens.vocabulary import Vocabulary, vocabulary_of_sentencepiece, vocabulary_of_tokenizer_json

SENTENCEPIECE_SUFFIXES = (".model", ".spm")
EncoderChoice = Literal["auto", "tokenizers", "fastokens"]
"""auto: the fastest that gives the reference's ids."""


class PackTokenizer:
    """A tokenizer file, loaded.

    Attributes:
      path: the file.
      sha256: of its content.
      vocabulary: its tokens.
      dtype: ``uint16`` or ``int32``, what its ids fit in.
      encoder: what encodes; another one gives the same tokens.
      not_faster: why the reference encodes, where a fast encoder was asked for.
    """

    def __init__(
        self, path: Path, content: bytes, vocabulary: Vocabulary, encoder: Encoder, not_faster: str | None = None
    ) -> None:
        self.path, self.vocabulary, self.encoder, self.not_faster = path, vocabulary, encoder, not_faster
        self.sha256 = hashlib.sha256(content).hexdigest()
        if not vocabulary.size:
            raise FormatError(f"the tokenizer {path} has no tokens.")
        self.dtype = token_dtype(vocabulary.size)
        self._special = vocabulary.special_table()

    @property
    def vocab_size(self) -> int:
        return self.vocabulary.size

    def for_part(self, difference: str | None = None) -> PackTokenizer:
        """Returns this tokenizer to encode a part with: what a fast encoder does there is compared anew.

        Args:
          difference: where the encoders are known to differ in this part; the reference then encodes all of it.
        """
        mine = copy.copy(self)
        if isinstance(self.encoder, ProvedEncoder):
            mine.encoder = ProvedEncoder(self.encoder.fast, self.encoder.reference, difference)
        return mine

    def account(self) -> dict[str, Any]:
        """Returns what encoded, how many texts, how many of them were compared, and what was different (JSON-able)."""
        account: dict[str, Any] = {"encoder": self.encoder.name, "num_compared": 0, "difference": self.not_faster}
        if isinstance(self.encoder, ProvedEncoder):
            proof = self.encoder.proof
            account |= {"num_compared": proof.num_compared, "difference": proof.difference}
        return account | {"version": importlib.metadata.version(account["encoder"])}

    def token_id(self, token: str, option: str) -> int:
        """Returns the id of a token; ``option`` is what asked for it (``write_packs.eos_token``).

        Raises:
          ConfigError: there is no such token.
        """
        if token not in self.vocabulary.ids:
            raise ConfigError(
                f"the tokenizer {self.path} has no token '{token}'; set {option}"
                f"{nearest(token, self.vocabulary.special)}"
            )
        return self.vocabulary.ids[token]

    def reserve(self, *token_ids: int) -> None:
        """Keeps more tokens from being made of a text, as special ones are kept."""
        self._special[list(token_ids)] = True

    def ordinary_ids(self) -> npt.NDArray[np.int32]:
        """Returns the ids that a text may become, ascending."""
        known = np.zeros(self.vocab_size, np.bool_)
        known[list(self.vocabulary.ids.values())] = True
        return np.flatnonzero(known & ~self._special).astype(np.int32)

    def encode(self, texts: pl.Series, first: int | None = None, last: int | None = None) -> Encoded:
        """Encodes a String column; a null counts as an empty text.

        Args:
          first: a token to put before every text, if one is to be.
          last: a token to put behind every text.

        Raises:
          FormatError: the encoder returned an id that is not in the vocabulary, or of a special token that the
            vocabulary has no other spelling for.
        """
        ids = self.encoder.encode(texts.fill_null("") if texts.null_count() else texts)
        tokens, num_special = self._narrowed(ids, first, last)
        if num_special:
            ids = self._spelled_out(ids)
            tokens, _ = self._narrowed(ids, first, last)
        lengths = ids.lengths + ((first is not None) + (last is not None))
        if len(lengths) and int(lengths.max()) > np.iinfo(np.int32).max:
            raise FormatError("a document has more than 2,147,483,647 tokens; split it first.")
        return Encoded(tokens, lengths.astype(np.int32))

    def _narrowed(self, ids: Ids, first: int | None, last: int | None) -> tuple[npt.NDArray[Any], int]:
        """Returns tokens of the pack's type, ends included, and how many of the encoder's are special."""
        from dataeng.kernels.document_ends import NOTHING, narrow_ids

        before, behind = (NOTHING if token is None else token for token in (first, last))
        out = np.empty(len(ids.tokens) + len(ids.lengths) * ((before >= 0) + (behind >= 0)), self.dtype)
        given = ids.tokens.view()
        given.flags.writeable = False
        largest, num_special = narrow_ids(given, ids.lengths, self._special, before, behind, out)
        if largest >= self.vocab_size:
            raise FormatError(
                f"{self.encoder.name} returned the token id {largest} for the tokenizer {self.path}, whose ids end at "
                f"{self.vocab_size - 1}."
            )
        return out, num_special

    def _spelled_out(self, ids: Ids) -> Ids:
        """Replaces special tokens that a model found in a text by itself, as Unigram does, by their characters."""
        names = {token_id: token for token, token_id in self.vocabulary.ids.items()}
        ends = np.cumsum(ids.lengths)
        lengths, pieces, last = ids.lengths.copy(), [], 0
        for place in np.flatnonzero(self._special[ids.tokens]).tolist():
            name = names[int(ids.tokens[place])]
            spelling = self.vocabulary.spell(name)
            if spelling is None or self._special[spelling].any():
                raise FormatError(
                    f"a text contains '{name}', which the tokenizer {self.path} cannot write but as the special token."
                )
            pieces += [ids.tokens[last:place], np.array(spelling, np.uint32)]
            lengths[np.searchsorted(ends, place, side="right")] += len(spelling) - 1
            last = place + 1
        return Ids(np.concatenate([*pieces, ids.tokens[last:]]), lengths)


def load_tokenizer(path: Path, encoder: EncoderChoice = "auto") -> PackTokenizer:
    """Loads a ``tokenizer.json`` or a SentencePiece ``.model`` file.

    A fast encoder is taken only if it gives the reference's ids for `hard_texts`.

    Raises:
      ConfigError: the file cannot be read, or a library to read it with is missing, or cannot read it.
      FormatError: it is not what its name says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the tokenizer {path}: {error.strerror}.") from error
    if path.suffix in SENTENCEPIECE_SUFFIXES:
        if encoder != "auto":
            raise ConfigError(f"{path} is a SentencePiece model, which {encoder} does not read; set encoder: auto.")
        pieces = SentencePieceEncoder(content, path)
        return PackTokenizer(path, content, vocabulary_of_sentencepiece(pieces.processor), pieces)
    vocabulary, reference, fast, difference = _read_json(content, path, encoder != "tokenizers")
    if fast is None and encoder == "fastokens":
        raise ConfigError(f"{difference} ({path}); set encoder: auto.")
    if fast is None or difference is not None:
        return PackTokenizer(path, content, vocabulary, reference, difference)
    return PackTokenizer(path, content, vocabulary, ProvedEncoder(fast, reference))


@lru_cache(maxsize=4)
def _read_json(
    content: bytes, path: Path, faster: bool
) -> tuple[Vocabulary, TokenizersEncoder, FastokensEncoder | None, str | None]:
    """Returns the vocabulary, the reference, the fast encoder, and why that should not or cannot be used.

    Reading a file and comparing the encoders takes a quarter of a second, so that what came of it is kept.
    """
    reference = TokenizersEncoder(content, path)
    vocabulary = vocabulary_of_tokenizer_json(reference.tokenizer, content)
    if not faster:
        return vocabulary, reference, None, None
    try:
        fast = FastokensEncoder(content)
    except (ImportError, ValueError) as error:
        return vocabulary, reference, None, f"fastokens cannot be used: {' '.join(str(error).split())[:200]}"
    return vocabulary, reference, fast, first_difference(fast, reference, hard_texts(vocabulary))
