"""Tokenizing documents into packs, one per domain."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PrivateAttr

from dataeng.document import DOMAIN_PATTERN
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import AtomicFile, fs, write_bytes
from dataeng.formats.pack import PackManifest, Shard, ShardFile, idx_bytes, token_dtype, write_manifest
from dataeng.stage import Columns, OutputFiles, PipelinePath, Sink
from dataeng.stages.tokens.train_tokenizer import END_OF_TEXT, TOKENIZER_FILE

DOCUMENT_COLUMNS = ("id", "url", "host", "source", "source_offset", "date", "domain", "language")
COMPRESSION = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}


class WritePacks(Sink):
    """Encodes every document, ends it with EOS, and appends it to its domain's pack.

    Strings in a text that look like special tokens stay text. The vocabulary decides between 2 and 4 bytes a token.
    """

    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    tokenizer: PipelinePath | None = Field(
        default=None, description="A tokenizer.json; default: the one trained before"
    )
    eos_token: str = Field(default=END_OF_TEXT, description="The token that ends every document")
    formats: tuple[Literal["megatron", "parquet"], ...] = Field(
        default=("megatron", "parquet"), min_length=1, description="What to write; the trainer reads megatron"
    )
    _encoder: Any = PrivateAttr(default=None)
    _description: dict[str, Any] = PrivateAttr(default_factory=dict)

    def columns(self) -> Columns:
        return Columns(reads=("id", "text", "domain"))

    def needs_artifacts(self) -> tuple[str, ...]:
        return ("tokenizer",) if self.tokenizer is None else ()

    def model_files(self) -> tuple[Path, ...]:
        return (self.tokenizer,) if self.tokenizer is not None else ()

    def check(self) -> None:
        if self.tokenizer is not None:
            self.setup({})

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        from tokenizers import Tokenizer

        path = self.tokenizer or artifacts["tokenizer"]
        try:
            content = path.read_bytes()
            self._encoder = Tokenizer.from_str(content.decode())
        except OSError as error:
            raise ConfigError(f"cannot read the tokenizer {path}: {error.strerror}.") from error
        except Exception as error:  # the library raises bare Exception for every malformed file
            raise FormatError(f"{path} is not a tokenizer.json: {error}") from error
        self._encoder.no_padding()
        self._encoder.no_truncation()
        self._encoder.encode_special_tokens = True
        eos_id = self._encoder.token_to_id(self.eos_token)
        if eos_id is None:
            raise ConfigError(f"the tokenizer {path} has no token '{self.eos_token}'; set write_packs.eos_token.")
        # Not the number of tokens: ids may have gaps, and embeddings need a row for the largest one.
        vocab_size = max(self._encoder.get_vocab(with_added_tokens=True).values()) + 1
        self._description = {
            "tokenizer_sha256": hashlib.sha256(content).hexdigest(),
            "vocab_size": vocab_size,
            "eos_id": eos_id,
            "dtype": token_dtype(vocab_size),
        }

    def open(self, part: int, outputs: OutputFiles) -> _PartWriter:
        return _PartWriter(self, part, outputs)

    def encode(self, texts: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        """Returns the tokens of all texts, each followed by EOS, and the number of tokens of each, EOS included."""
        encodings = self._encoder.encode_batch_fast(texts, add_special_tokens=False)
        dtype, eos = self._description["dtype"], self._description["eos_id"]
        # One small array per document: the library hands out ids as Python lists; encoding costs 20 times as much.
        arrays = [np.append(np.array(encoding.ids, dtype), np.array(eos, dtype)) for encoding in encodings]
        lengths = np.array([len(array) for array in arrays], np.int32)
        return np.concatenate(arrays) if arrays else np.zeros(0, dtype), lengths

    def finish(self, run_dir: Path, shards: list[dict[str, Any]]) -> list[Path]:
        written = []
        if self.tokenizer is not None:
            write_bytes(run_dir / TOKENIZER_FILE, self.tokenizer.read_bytes())
            written.append(run_dir / TOKENIZER_FILE)
        by_domain = sorted(shards, key=lambda shard: (shard["domain"], shard["shard"]["name"]))
        for domain, group in groupby(by_domain, key=lambda shard: str(shard["domain"])):
            folder = run_dir / "packs" / domain
            write_manifest(folder, _manifest(domain, list(group)))
            written.append(folder / "pack.json")
        _remove_strangers(run_dir / "packs", written, shards)
        return written


def _manifest(domain: str, shards: list[dict[str, Any]]) -> PackManifest:
    described = [Shard.model_validate(shard["shard"]) for shard in shards]
    return PackManifest(
        domain=domain,
        tokenizer=f"../../{TOKENIZER_FILE}",
        num_documents=sum(shard.num_documents for shard in described),
        num_tokens=sum(shard.num_tokens for shard in described),
        text_bytes=sum(shard["text_bytes"] for shard in shards),
        shards=described,
        **shards[0]["tokens"],
    )


def _remove_strangers(packs: Path, manifests: list[Path], shards: list[dict[str, Any]]) -> None:
    """Removes pack files of an earlier configuration, so that no domain outlives its documents."""
    named = set(manifests)
    for shard in shards:
        named.update(packs / shard["domain"] / file["name"] for file in shard["shard"]["files"].values())
    for folder in [path for path in packs.iterdir() if path.is_dir()] if packs.is_dir() else ():
        for path in folder.iterdir():
            if path not in named and not path.is_dir():
                fs.remove(path)
        if not any(folder.iterdir()):
            folder.rmdir()


class _PartWriter:
    """Writes the shards of one part: at most one per domain."""

    def __init__(self, stage: WritePacks, part: int, outputs: OutputFiles) -> None:
        self.stage, self.name, self.outputs = stage, f"{part:05d}", outputs
        self.shards: dict[str, _ShardWriter] = {}

    def write(self, batch: pl.DataFrame) -> None:
        for (domain,), rows in batch.group_by("domain", maintain_order=True):
            if not isinstance(domain, str) or not re.match(DOMAIN_PATTERN, domain):
                raise FormatError(
                    f"a document (id {rows.item(0, 'id')}) has the domain {domain!r}; it becomes a folder: expected "
                    "1 to 64 of the characters a-z 0-9 _ -"
                )
            if domain not in self.shards:
                self.shards[domain] = _ShardWriter(self.stage, domain, self.name, self.outputs)
            self.shards[domain].write(rows)

    def close(self) -> list[dict[str, Any]]:
        return [self.shards[domain].close() for domain in sorted(self.shards)]


class _ShardWriter:
    def __init__(self, stage: WritePacks, domain: str, name: str, outputs: OutputFiles) -> None:
        self.stage, self.domain, self.name = stage, domain, name
        self.dtype = stage._description["dtype"]
        self.text_bytes = 0
        self.lengths: list[npt.NDArray[np.int32]] = []
        self.documents: list[pl.DataFrame] = []
        self.files: dict[str, tuple[str, AtomicFile]] = {}
        kinds = {"docs": f"{name}.docs.parquet"}
        if "megatron" in stage.formats:
            kinds |= {"bin": f"{name}.bin", "idx": f"{name}.idx"}
        if "parquet" in stage.formats:
            kinds |= {"parquet": f"{name}.parquet"}
        for kind, file in kinds.items():
            self.files[kind] = (file, outputs.create(f"packs/{domain}/{file}"))
        self.parquet: pq.ParquetWriter | None = None

    def write(self, rows: pl.DataFrame) -> None:
        tokens, lengths = self.stage.encode(rows.get_column("text").to_list())
        sizes = rows.get_column("text").str.len_bytes()
        self.lengths.append(lengths)
        self.text_bytes += int(sizes.sum())
        known = [column for column in DOCUMENT_COLUMNS if column in rows.columns]
        documents = rows.select(known).with_columns(
            pl.Series("num_tokens", lengths), sizes.cast(pl.Int64).alias("text_bytes")
        )
        self.documents.append(documents)
        if "bin" in self.files:
            self.files["bin"][1].write(tokens.astype(np.dtype(self.dtype).newbyteorder("<"), copy=False).tobytes())
        if "parquet" in self.files:
            offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            table = documents.to_arrow().append_column(
                "tokens", pa.LargeListArray.from_arrays(offsets, pa.array(tokens))
            )
            if self.parquet is None:
                self.parquet = pq.ParquetWriter(self.files["parquet"][1], table.schema, **COMPRESSION)
            self.parquet.write_table(table, row_group_size=table.num_rows)

    def close(self) -> dict[str, Any]:
        lengths = np.concatenate(self.lengths)
        if "idx" in self.files:
            self.files["idx"][1].write(idx_bytes(lengths, self.dtype))
        if self.parquet is not None:
            self.parquet.close()
        pq.write_table(pl.concat(self.documents).to_arrow(), self.files["docs"][1], **COMPRESSION)
        shard = Shard(
            name=self.name,
            num_documents=len(lengths),
            num_tokens=int(lengths.sum(dtype=np.int64)),
            files={
                kind: ShardFile(name=name, size_bytes=file.size_bytes, sha256=file.sha256)
                for kind, (name, file) in self.files.items()
            },
        )
        return {
            "domain": self.domain,
            "text_bytes": self.text_bytes,
            "tokens": self.stage._description,
            "shard": shard.model_dump(mode="json"),
        }
