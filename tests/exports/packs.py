"""Packs of given or random documents, with masks and a table of documents, written field by field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import Domain, MixtureManifest, Policy, save_mixture
from dataeng.formats.pack import PackManifest, Shard, ShardFile, idx_bytes, write_manifest

EOS = 7
VOCABULARIES = {"uint16": 60_000, "int32": 100_000}
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [
            {"id": EOS, "content": "<eos>", "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        ],
        "model": {"type": "WordLevel", "vocab": {"a": 0, "<eos>": EOS}, "unk_token": "a"},
    }
)


@dataclass(frozen=True)
class Content:
    """What a pack holds: for every shard its documents, and the mask of each, or None for a shard without masks.

    A document is what stands before EOS; its mask is one longer.
    """

    shards: list[list[list[int]]]
    masks: list[list[list[int]] | None]
    dtype: str = "uint16"

    def documents(self) -> list[list[int]]:
        """All documents with their EOS."""
        return [[*document, EOS] for shard in self.shards for document in shard]

    def tokens(self) -> list[int]:
        return [token for document in self.documents() for token in document]

    def document_masks(self) -> list[list[int]]:
        """The masks of all documents; ones where there is none."""
        return [
            [1] * (len(document) + 1) if masks is None else masks[number]
            for shard, masks in zip(self.shards, self.masks, strict=True)
            for number, document in enumerate(shard)
        ]

    def mask(self) -> list[int]:
        return [value for mask in self.document_masks() for value in mask]

    @property
    def masked(self) -> bool:
        return any(shard and mask is not None for shard, mask in zip(self.shards, self.masks, strict=True))

    def per_shard(self) -> list[list[list[int]]]:
        """Documents with EOS of every shard that has some."""
        return [[[*document, EOS] for document in shard] for shard in self.shards if shard]


@st.composite
def contents(draw: st.DrawFn, masked: bool | None = None) -> Content:
    """Random packs: shards and documents may be empty, a token may be EOS, and some shards may lack a mask."""
    dtype = draw(st.sampled_from(list(VOCABULARIES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = draw(st.lists(st.lists(st.integers(0, 40) | st.integers(250, 260), max_size=6), min_size=1, max_size=4))
    if not any(sizes):
        sizes[0] = [0]
    with_masks = draw(st.booleans()) if masked is None else masked
    vocabulary = VOCABULARIES[dtype]
    # Ids of both ends of the vocabulary, where the types' limits are.
    shards = [
        [rng.choice([EOS, 0, vocabulary - 1, 1, 255, 256, 32_768], size).tolist() for size in shard] for shard in sizes
    ]
    masks: list[list[list[int]] | None] = [None] * len(sizes)
    if with_masks:
        first = next(number for number, shard in enumerate(sizes) if shard)
        for number, shard in enumerate(sizes):
            if number == first or rng.random() < 0.7:
                masks[number] = [rng.integers(0, 2, size + 1).tolist() for size in shard]
    return Content(shards, masks, dtype)


def document_id(domain: str, shard: int, number: int) -> str:
    return hashlib.sha256(f"{domain}/{shard}/{number}".encode()).hexdigest()[:20]


def document_ids(domain: str, content: Content) -> list[str]:
    return [
        document_id(domain, shard, number)
        for shard, documents in enumerate(content.shards)
        for number in range(len(documents))
    ]


def write_pack(
    folder: Path, content: Content, domain: str = "web", parquet_alone: bool = False, **changes: object
) -> Path:
    """Writes a pack, as Megatron's files or in Parquet alone; its tokenizer lies in the folder above."""
    folder.mkdir(parents=True)
    tokenizer = folder.parent / "tokenizer.json"
    tokenizer.write_text(TOKENIZER)
    listed = []
    for shard, (documents, masks) in enumerate(zip(content.shards, content.masks, strict=True)):
        name = f"{shard:05d}"
        ended = [[*document, EOS] for document in documents]
        lengths = np.array([len(document) for document in ended], np.int32)
        flat = np.array([token for document in ended for token in document], content.dtype)
        (folder / f"{name}.bin").write_bytes(flat.tobytes())
        (folder / f"{name}.idx").write_bytes(idx_bytes(lengths, content.dtype))
        table = {
            "id": [document_id(domain, shard, number) for number in range(len(documents))],
            "url": [f"http://{domain}.test/{shard}/{number},a\nb" for number in range(len(documents))],
            "source": [f"in,put\n{shard}.warc" for _ in documents],
            "source_offset": [number * 100 for number in range(len(documents))],
            "num_tokens": lengths,
        }
        strings = {key: pa.large_string() for key in ("id", "url", "source")}
        arrays = {key: pa.array(values, strings.get(key)) for key, values in table.items()}
        pq.write_table(pa.table(arrays), folder / f"{name}.docs.parquet")
        kinds = {"bin": "bin", "idx": "idx", "docs": "docs.parquet"}
        if parquet_alone:
            arrays["tokens"] = pa.array(ended, pa.large_list(pa.from_numpy_dtype(flat.dtype)))
            if masks is not None:
                arrays["mask"] = pa.array(masks, pa.large_list(pa.uint8()))
            pq.write_table(pa.table(arrays), folder / f"{name}.parquet", row_group_size=2)
            kinds = {"docs": "docs.parquet", "parquet": "parquet"}
        elif masks is not None:
            flat_mask = np.array([value for mask in masks for value in mask], np.uint8)
            (folder / f"{name}.mask").write_bytes(flat_mask.tobytes())
            kinds["mask"] = "mask"
        files = {
            kind: ShardFile(
                name=f"{name}.{suffix}",
                size_bytes=(folder / f"{name}.{suffix}").stat().st_size,
                sha256=sha256_file(folder / f"{name}.{suffix}"),
            )
            for kind, suffix in kinds.items()
        }
        listed.append(Shard(name=name, num_documents=len(documents), num_tokens=len(flat), files=files))
    described: dict[str, object] = {
        "domain": domain,
        "dtype": content.dtype,
        "tokenizer": "../tokenizer.json",
        "tokenizer_sha256": sha256_file(tokenizer),
        "vocab_size": VOCABULARIES[content.dtype],
        "eos_id": EOS,
        "num_documents": len(content.documents()),
        "num_tokens": len(content.tokens()),
        "text_bytes": 0,
        "shards": [shard.model_dump() for shard in listed],
    }
    write_manifest(folder, PackManifest.model_validate(described | changes))
    return folder


def write_run(folder: Path, domains: dict[str, Content]) -> Path:
    """Writes a run's packs, one a domain."""
    for name, content in domains.items():
        write_pack(folder / "packs" / name, content, name)
    return folder


def write_mixture(path: Path, weights: dict[str, float], packs: dict[str, Sequence[Path]]) -> Path:
    """Writes a manifest of packs with the given weights."""
    domains = {
        name: Domain(
            packs=[str(folder.relative_to(path.parent)) for folder in packs[name]],
            num_documents=1,
            num_tokens=1,
            weight=weight,
        )
        for name, weight in weights.items()
    }
    save_mixture(
        path,
        MixtureManifest(
            tokenizer_sha256=hashlib.sha256(TOKENIZER.encode()).hexdigest(),
            vocab_size=VOCABULARIES["uint16"],
            domains=domains,
            policy=Policy(name="given"),
        ),
    )
    return path
