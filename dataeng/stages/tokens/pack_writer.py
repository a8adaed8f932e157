"""Writing the shards of packs: tokens, index, documents, masks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataeng.document import DOMAIN_PATTERN
from dataeng.errors import FormatError
from dataeng.formats.atomic import AtomicFile
from dataeng.formats.pack import Shard, ShardFile, idx_bytes, pack_folder
from dataeng.stage import OutputFiles, StartAgain
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.objectives.objective import Objective
from dataeng.stages.tokens.pack_tokenizer import PackTokenizer

DOCUMENT_COLUMNS = ("id", "url", "host", "source", "source_offset", "date", "domain", "language")
COUNT_COLUMNS = ("num_tokens", "text_bytes")  # of docs.parquet, made here
TOKEN_COLUMNS = ("tokens", "mask")  # of the Parquet pack, made here
COMPRESSION = {"compression": "zstd", "compression_level": 1, "use_dictionary": False}


@dataclass(frozen=True)
class Recipe:
    """How documents become tokens, and which files are written."""

    tokenizer: PackTokenizer
    objective: Objective
    ends: Ends
    formats: tuple[str, ...]
    description: dict[str, Any]
    """What the pack's manifest says about its tokens."""
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    """Other objectives, by domain."""
    keep: tuple[str, ...] = ()
    """Columns of the documents that docs.parquet has besides `DOCUMENT_COLUMNS`."""
    held_out: float = 0.0
    """Share of the documents that nobody is to train on."""

    def objective_of(self, domain: str) -> Objective:
        """Returns what is made of the documents of a domain."""
        return self.objectives.get(domain, self.objective)

    def encode(self, rows: pl.DataFrame, domain: str) -> Encoded:
        """Returns the tokens of a domain's documents, BOS and EOS included."""
        return self.objective_of(domain).encode(rows, self.tokenizer, self.ends)


def is_held_out(ids: pl.Series, share: float) -> pl.Series:
    """Returns which documents are held out: those whose id's hash is among the first ``share`` of all hashes."""
    from dataeng.kernels.hashing import hash_texts
    from dataeng.kernels.text import text_buffers

    keys = pl.select(pl.format("held out:{}", ids)).to_series()  # a hash of its own: others sample by the id's, too
    return pl.Series(hash_texts(text_buffers(keys))[0]) < int(share * 2**64)


def _by_domain(batch: pl.DataFrame) -> Iterator[tuple[Any, pl.DataFrame]]:
    """Yields the rows of every domain, in order of its first row; most batches have one."""
    if batch.height and batch.get_column("domain").n_unique() == 1:
        yield batch.item(0, "domain"), batch
        return
    for (domain,), rows in batch.group_by("domain", maintain_order=True):
        yield domain, rows


class PartWriter:
    """Writes the shards of one part: at most one per domain, and one of what is held out of it.

    ``differing`` remembers, by part, where encoders were found to differ in the middle of it.
    """

    def __init__(self, recipe: Recipe, part: int, outputs: OutputFiles, differing: dict[int, str]) -> None:
        tokenizer = recipe.tokenizer.for_part(differing.get(part))
        self.recipe, self.part, self.outputs, self.differing = (
            replace(recipe, tokenizer=tokenizer),
            part,
            outputs,
            differing,
        )
        self.shards: dict[str, ShardWriter] = {}

    def write(self, batch: pl.DataFrame) -> None:
        for domain, rows in _by_domain(batch):
            if not isinstance(domain, str) or not re.match(DOMAIN_PATTERN, domain):
                raise FormatError(
                    f"a document (id {rows.item(0, 'id')}) has the domain {domain!r}; it becomes a folder: expected "
                    "1 to 64 of the characters a-z 0-9 _ -"
                )
            for held_out, found in self._cut(rows):
                folder = pack_folder(domain, held_out)
                if folder not in self.shards:
                    name = f"{self.part:05d}"
                    self.shards[folder] = ShardWriter(self.recipe, domain, name, self.outputs, held_out)
                try:
                    self.shards[folder].write(found)
                except StartAgain as difference:
                    self.differing[self.part] = str(difference)
                    raise

    def _cut(self, rows: pl.DataFrame) -> Iterator[tuple[bool, pl.DataFrame]]:
        """Yields the documents to train on, and those that are held out; neither is empty."""
        if not self.recipe.held_out:
            yield False, rows
            return
        chosen = is_held_out(rows.get_column("id"), self.recipe.held_out)
        for held_out, found in ((False, rows.filter(~chosen)), (True, rows.filter(chosen))):
            if found.height:
                yield held_out, found

    def close(self) -> list[dict[str, Any]]:
        account = self.recipe.tokenizer.account()
        return [{**self.shards[folder].close(), "encoding": account} for folder in sorted(self.shards)]


class ShardWriter:
    """Writes one shard of one domain."""

    def __init__(self, recipe: Recipe, domain: str, name: str, outputs: OutputFiles, held_out: bool = False) -> None:
        self.recipe, self.domain, self.name, self.held_out = recipe, domain, name, held_out
        self.objective = recipe.objective_of(domain)
        self.dtype = recipe.tokenizer.dtype
        self.text_bytes = 0
        self.lengths: list[npt.NDArray[np.int32]] = []
        self.documents: list[pl.DataFrame] = []
        self.files: dict[str, tuple[str, AtomicFile]] = {}
        kinds = {"docs": f"{name}.docs.parquet"}
        if "megatron" in recipe.formats:
            kinds |= {"bin": f"{name}.bin", "idx": f"{name}.idx"}
            if self.objective.masks:
                kinds |= {"mask": f"{name}.mask"}
        if "parquet" in recipe.formats:
            kinds |= {"parquet": f"{name}.parquet"}
        for kind, file in kinds.items():
            self.files[kind] = (file, outputs.create(f"packs/{pack_folder(domain, held_out)}/{file}"))
        self.parquet: pq.ParquetWriter | None = None

    def write(self, rows: pl.DataFrame) -> None:
        encoded = self.recipe.encode(rows, self.domain)
        if len(encoded.lengths) != rows.height or (encoded.mask is not None) != self.objective.masks:
            kind = type(self.objective).__name__
            raise ValueError(f"{kind} made {len(encoded.lengths)} documents of {rows.height}, or forgot their mask")
        sizes = rows.get_column("text").str.len_bytes().fill_null(0)
        self.lengths.append(encoded.lengths)
        self.text_bytes += int(sizes.sum())
        known = [column for column in DOCUMENT_COLUMNS if column in rows.columns]
        known += self.recipe.keep
        documents = rows.select(known).with_columns(
            pl.Series("num_tokens", encoded.lengths), sizes.cast(pl.Int64).alias("text_bytes")
        )
        self.documents.append(documents)
        if "bin" in self.files:
            tokens = encoded.tokens.astype(np.dtype(self.dtype).newbyteorder("<"), copy=False)
            self.files["bin"][1].write(tokens.view(np.uint8).data)
        if "mask" in self.files and encoded.mask is not None:
            self.files["mask"][1].write(encoded.mask.data)
        if "parquet" in self.files:
            self._write_parquet(documents, encoded)

    def _write_parquet(self, documents: pl.DataFrame, encoded: Encoded) -> None:
        offsets = pa.array(np.concatenate([[0], np.cumsum(encoded.lengths, dtype=np.int64)]))
        table = documents.to_arrow()
        for name, values in (("tokens", encoded.tokens), ("mask", encoded.mask)):
            if values is not None:
                table = table.append_column(name, pa.LargeListArray.from_arrays(offsets, pa.array(values)))
        if self.parquet is None:
            self.parquet = pq.ParquetWriter(self.files["parquet"][1], table.schema, **COMPRESSION)
        self.parquet.write_table(table, row_group_size=table.num_rows)

    def close(self) -> dict[str, Any]:
        """Finishes the files and describes the shard."""
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
            "held_out": self.held_out,
            "text_bytes": self.text_bytes,
            "tokens": self.recipe.description | {"objective": self.objective.model_dump(mode="json")},
            "shard": shard.model_dump(mode="json"),
        }
