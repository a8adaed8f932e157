"""A tokenizer as packs need it: columns in, tokens of the pack's type out; no text becomes a special token."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.pack import token_dtype
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.encoders import Encoder, Ids, SentencePieceEncoder, TokenizersEncoder
from dataeng.stages.tokens.vocabulary import Vocabulary, vocabulary_of_sentencepiece, vocabulary_of_tokenizer_json

SENTENCEPIECE_SUFFIXES = (".model", ".spm")


class PackTokenizer:
    """A tokenizer file, loaded.

    Attributes:
      path: the file.
      sha256: of its content.
      vocabulary: its tokens.
      dtype: ``uint16`` or ``int32``, what its ids fit in.
      encoder: what encodes; another one gives the same tokens.
    """

    def __init__(self, path: Path, content: bytes, vocabulary: Vocabulary, encoder: Encoder) -> None:
        self.path, self.vocabulary, self.encoder = path, vocabulary, encoder
        self.sha256 = hashlib.sha256(content).hexdigest()
        if not vocabulary.size:
            raise FormatError(f"the tokenizer {path} has no tokens.")
        self.dtype = token_dtype(vocabulary.size)
        self._special = vocabulary.special_table()

    @property
    def vocab_size(self) -> int:
        return self.vocabulary.size

    def token_id(self, token: str, option: str) -> int:
        """Returns the id of a token; ``option`` is what asked for it (``write_packs.eos_token``).

        Raises:
          ConfigError: there is no such token.
        """
        if token not in self.vocabulary.ids:
            raise ConfigError(
                f"the tokenizer {self.path} has no token '{token}'; set {option}"
                f"{nearest(token, self.vocabulary.special)}."
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

    def encode(self, texts: pl.Series) -> Encoded:
        """Encodes a String column; a null counts as an empty text. Nothing is added to the texts.

        Raises:
          FormatError: the encoder returned an id that is not in the vocabulary, or of a special token that the
            vocabulary has no other spelling for.
        """
        ids = self.encoder.encode(texts.fill_null("") if texts.null_count() else texts)
        if len(ids.tokens) and (largest := int(ids.tokens.max())) >= self.vocab_size:
            raise FormatError(
                f"{self.encoder.name} returned the token id {largest} for the tokenizer {self.path}, whose ids end at "
                f"{self.vocab_size - 1}."
            )
        hits = self._special[ids.tokens]
        if hits.any():
            ids = self._spelled_out(ids, np.flatnonzero(hits))
        if len(ids.lengths) and int(ids.lengths.max()) > np.iinfo(np.int32).max:
            raise FormatError("a document has more than 2,147,483,647 tokens; split it first.")
        return Encoded(ids.tokens.astype(self.dtype), ids.lengths.astype(np.int32))

    def _spelled_out(self, ids: Ids, places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Ids:
        """Replaces special tokens that a model found in a text by itself, as Unigram does, by their characters."""
        names = {token_id: token for token, token_id in self.vocabulary.ids.items()}
        ends = np.cumsum(ids.lengths)
        lengths, pieces, last = ids.lengths.copy(), [], 0
        for place in places.tolist():
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


def load_tokenizer(path: Path) -> PackTokenizer:
    """Loads a ``tokenizer.json`` or a SentencePiece ``.model`` file.

    Raises:
      ConfigError: the file cannot be read, or a library to read it with is missing.
      FormatError: it is not what its name says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the tokenizer {path}: {error.strerror}.") from error
    if path.suffix in SENTENCEPIECE_SUFFIXES:
        pieces = SentencePieceEncoder(content, path)
        return PackTokenizer(path, content, vocabulary_of_sentencepiece(pieces.processor), pieces)
    reference = TokenizersEncoder(content, path)
    return PackTokenizer(path, content, vocabulary_of_tokenizer_json(reference.tokenizer, content), reference)
