"""One ``.bin``/``.idx`` pair for each domain, in place of one for each shard of the pack, and their blend.

Layout after ``megatron/core/datasets/indexed_dataset.py``; packs have the same, shard by shard.
"""

from __future__ import annotations

import struct

import numpy as np

from dataeng.exports.blocks import token_blocks
from dataeng.exports.corpus import Domain
from dataeng.exports.layout import Job
from dataeng.exports.output import OutputFolder
from dataeng.formats.megatron_index import DTYPE_CODES, MAGIC


def write(job: Job, domain: Domain, out: OutputFolder) -> None:
    dtype = np.dtype(job.corpus.dtype)
    with out.create(f"{domain.name}.bin") as file:
        for shard in domain.shards():
            for tokens in token_blocks(shard):
                file.write(tokens.astype(dtype.newbyteorder("<"), copy=False))
    # The index has three parts, each over all documents: the shards are gone through three times.
    num = domain.num_documents
    with out.create(f"{domain.name}.idx") as file:
        file.write(MAGIC + struct.pack("<QBQQ", 1, DTYPE_CODES[job.corpus.dtype], num, num + 1))
        for shard in domain.shards():
            file.write(shard.lengths.astype("<i4"))
        before = 0
        for shard in domain.shards():
            file.write(((shard.offsets[:-1] + before) * dtype.itemsize).astype("<i8"))
            before += int(shard.offsets[-1])
        file.write(np.arange(num + 1, dtype="<i8"))


def point_at(job: Job) -> list[str]:
    corpus = job.corpus
    blend = (
        f"{weight:.6g} {(job.output if corpus.alone else job.output / name) / name}"
        for name, weight in corpus.weights().items()
    )
    return ["# Megatron-LM", f"--data-path {' '.join(blend)}"]
