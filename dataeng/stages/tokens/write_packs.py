"""Tokenizing documents into packs, one per domain."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, PrivateAttr

from dataeng.errors import ConfigError
from dataeng.formats.atomic import fs, write_bytes
from dataeng.formats.pack import PackManifest, Shard, folder_of, write_manifest
from dataeng.stage import Columns, OutputFiles, PipelinePath, Sink
from dataeng.stages.tokens.encoded import Encoded
from dataeng.stages.tokens.objectives import AnyObjective, PlainText
from dataeng.stages.tokens.objectives.ends import Ends
from dataeng.stages.tokens.pack_tokenizer import SENTENCEPIECE_SUFFIXES, EncoderChoice, load_tokenizer
from dataeng.stages.tokens.pack_writer import COUNT_COLUMNS, DOCUMENT_COLUMNS, TOKEN_COLUMNS, PartWriter, Recipe
from dataeng.stages.tokens.train_tokenizer import END_OF_TEXT, TOKENIZER_FILE

SENTENCEPIECE_FILE = "tokenizer/tokenizer.model"


class WritePacks(Sink):
    """Encodes every document, ends it with EOS, and appends it to its domain's pack.

    Strings in a text that look like special tokens stay text. The vocabulary decides between 2 and 4 bytes a token.
    With ``held_out``, a share of the documents goes into packs of their own, to measure models on: the same documents
    in every run, whatever else is in it.
    """

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers", "sentencepiece")
    kernels: ClassVar[tuple[str, ...]] = ("hashing", "noising")

    tokenizer: PipelinePath | None = Field(
        default=None, description="A tokenizer.json or a SentencePiece .model; default: the one trained before"
    )
    encoder: EncoderChoice = Field(
        default="auto",
        description="What encodes; auto: fastokens where it gives tokenizers' ids. The tokens are the same",
    )
    objective: AnyObjective = Field(
        default_factory=PlainText, description="What is made of a document: see docs/objectives.md"
    )
    objectives: dict[str, AnyObjective] = Field(
        default={},
        description="By domain, what is made of its documents instead; a domain that no document has is named at the "
        "end of the run",
    )
    eos: Literal["append", "none"] = Field(default="append", description="Whether every document ends with EOS")
    eos_token: str = Field(default=END_OF_TEXT, description="The token that ends every document")
    bos_token: str | None = Field(default=None, description="The token that begins every document; null: none does")
    formats: tuple[Literal["megatron", "parquet"], ...] = Field(
        default=("megatron", "parquet"), min_length=1, description="What to write; the trainer reads megatron"
    )
    held_out: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of each domain's documents, chosen by a hash of the id, for packs/DOMAIN.held-out instead",
    )
    keep: tuple[str, ...] = Field(
        default=(),
        description="Further columns for docs.parquet: signals, for curricula (`dataeng mix --order`)",
    )
    _recipe: Recipe | None = PrivateAttr(default=None)
    _differing: dict[int, str] = PrivateAttr(default_factory=dict)

    def columns(self) -> Columns:
        columns = [column for objective in self._all_objectives() for column in objective.columns()]
        return Columns(
            reads=tuple(dict.fromkeys(("id", "text", "domain", *columns, *self.keep))),
            hints={"chat": "apply_chat_template adds it"},
        )

    def needed_kernels(self) -> tuple[str, ...]:
        kernels = [kernel for objective in self._all_objectives() for kernel in objective.kernels]
        return tuple(dict.fromkeys(("document_ends", *kernels)))

    def _all_objectives(self) -> tuple[AnyObjective, ...]:
        return (self.objective, *self.objectives.values())

    def needs_artifacts(self) -> tuple[str, ...]:
        return ("tokenizer",) if self.tokenizer is None else ()

    def model_files(self) -> tuple[Path, ...]:
        return (self.tokenizer,) if self.tokenizer is not None else ()

    def check(self) -> None:
        taken = (*DOCUMENT_COLUMNS, *COUNT_COLUMNS, "text", *TOKEN_COLUMNS)
        for column in self.keep:
            if column in taken or self.keep.count(column) > 1:
                raise ConfigError(
                    f"write_packs.keep names '{column}', which packs have already, or never hold.", "keep"
                )
        if self.tokenizer is not None:
            self.model_copy(deep=True).setup({})  # a tokenizer need not go to workers with the stage

    def setup(self, artifacts: Mapping[str, Path]) -> None:
        tokenizer = load_tokenizer(self.tokenizer or artifacts["tokenizer"], self.encoder)
        eos_id = tokenizer.token_id(self.eos_token, "write_packs.eos_token")
        bos_id = None if self.bos_token is None else tokenizer.token_id(self.bos_token, "write_packs.bos_token")
        ends = Ends(bos_id, eos_id if self.eos == "append" else None)
        for objective in self._all_objectives():
            objective.prepare(tokenizer, ends)
        description = {
            "tokenizer_sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "eos_id": eos_id,
            "bos_id": bos_id,
            "eos": self.eos,
            "dtype": tokenizer.dtype,
        }
        self._recipe = Recipe(
            tokenizer,
            self.objective,
            ends,
            self.formats,
            description,
            self.objectives,
            self.keep,
            self.held_out,
        )

    @property
    def recipe(self) -> Recipe:
        """How this stage, set up, encodes."""
        if self._recipe is None:
            raise ConfigError("write_packs is not set up")
        return self._recipe

    def encode(self, rows: pl.DataFrame, domain: str = "") -> Encoded:
        """Returns the tokens of documents as they are written into the pack of ``domain``."""
        return self.recipe.encode(rows, domain)

    def open(self, part: int, outputs: OutputFiles) -> PartWriter:
        return PartWriter(self.recipe, part, outputs, self._differing)

    def finish(self, run_dir: Path, shards: list[dict[str, Any]]) -> list[Path]:
        written, copy = [], TOKENIZER_FILE
        if self.tokenizer is not None:
            copy = SENTENCEPIECE_FILE if self.tokenizer.suffix in SENTENCEPIECE_SUFFIXES else TOKENIZER_FILE
            write_bytes(run_dir / copy, self.tokenizer.read_bytes())
            written.append(run_dir / copy)
        by_folder = sorted(shards, key=lambda shard: (folder_of(shard), shard["shard"]["name"]))
        for name, group in groupby(by_folder, key=folder_of):
            folder = run_dir / "packs" / name
            write_manifest(folder, _manifest(f"../../{copy}", list(group)))
            written.append(folder / "pack.json")
        _remove_strangers(run_dir / "packs", written, shards)
        return written


def _manifest(tokenizer: str, shards: list[dict[str, Any]]) -> PackManifest:
    described = [Shard.model_validate(shard["shard"]) for shard in shards]
    return PackManifest(
        domain=shards[0]["domain"],
        held_out=shards[0].get("held_out", False),
        tokenizer=tokenizer,
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
        named.update(packs / folder_of(shard) / file["name"] for file in shard["shard"]["files"].values())
    for folder in [path for path in packs.iterdir() if path.is_dir()] if packs.is_dir() else ():
        for path in folder.iterdir():
            if path not in named and not path.is_dir():
                fs.remove(path)
        if not any(folder.iterdir()):
            folder.rmdir()
