"""Libraries that turn texts into token ids, behind one small contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from dataeng.errors import ConfigError, FormatError


class Ids(NamedTuple):
    """Token ids of a column of texts, one text after the other."""

    tokens: npt.NDArray[np.uint32]
    """[T]"""
    lengths: npt.NDArray[np.int64]
    """[texts], with sum T"""


class Encoder(Protocol):
    """Encodes texts as they are: no BOS, no EOS, no padding, no truncation; names of special tokens are text."""

    @property
    def name(self) -> str:
        """The distribution that it comes from."""

    def encode(self, texts: pl.Series) -> Ids:
        """Returns the ids of a String column without nulls."""


class TokenizersEncoder:
    """Hugging Face's `tokenizers`: the reference for everything in a ``tokenizer.json``."""

    name = "tokenizers"

    def __init__(self, content: bytes, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self.tokenizer: Any = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises bare Exception for every malformed file
            raise FormatError(f"{path} is not a tokenizer.json: {error}") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True

    def encode(self, texts: pl.Series) -> Ids:
        encodings = self.tokenizer.encode_batch_fast(texts.to_list(), add_special_tokens=False)
        # One small array per text: the library hands out ids as Python lists; encoding costs 20 times as much.
        return joined([np.array(encoding.ids, np.uint32) for encoding in encodings])


class FastokensEncoder:
    """`fastokens` (Apache-2.0, Crusoe): BPE from the same ``tokenizer.json``, some 30 times as fast.

    Raises:
      ValueError: the file has something in it that the library does not know (Unigram, WordPiece, Metaspace …).
      ImportError: it is not installed.
    """

    name = "fastokens"

    def __init__(self, content: bytes) -> None:
        from fastokens import Tokenizer

        self.tokenizer: Any = Tokenizer.from_json_str(content.decode())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def encode(self, texts: pl.Series) -> Ids:
        tokens, offsets = self.tokenizer.encode_batch_flat(texts.to_list(), split_special_tokens=True)
        ends = np.frombuffer(offsets, np.int64)  # unsigned, and below 2^63
        return Ids(np.frombuffer(tokens, np.uint32), ends[1:] - ends[:-1])


class SentencePieceEncoder:
    """Google's `sentencepiece`: the reference for its ``.model`` files. It never makes control pieces of text."""

    name = "sentencepiece"

    def __init__(self, content: bytes, path: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise ConfigError(
                f"{path} is a SentencePiece model; reading it needs the package: pip install 'dataeng[sentencepiece]'."
            ) from error
        try:
            self.processor: Any = SentencePieceProcessor(model_proto=content)
        except Exception as error:  # RuntimeError, or whatever the wrapper of the day raises
            raise FormatError(f"{path} is not a SentencePiece model: {error}") from error
        if not self.processor.get_piece_size():
            raise FormatError(f"{path} is not a SentencePiece model: it has no pieces.")

    def encode(self, texts: pl.Series) -> Ids:
        encoded = self.processor.encode(texts.to_list(), out_type=int, num_threads=1)
        # One small array per text, as above.
        return joined([np.array(ids, np.uint32) for ids in encoded])


def joined(arrays: list[npt.NDArray[np.uint32]]) -> Ids:
    """Returns the ids of texts that were encoded one by one."""
    lengths = np.array([len(array) for array in arrays], np.int64)
    return Ids(np.concatenate(arrays) if arrays else np.zeros(0, np.uint32), lengths)
