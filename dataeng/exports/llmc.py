"""The token files of llm.c, which modded-nanogpt and its descendants read, too.

Layout after ``dev/data/data_common.py`` of llm.c: 256 int32 of header ([0] magic, [1] version, [2] tokens), then the
tokens. There the end-of-text token comes *before* every document, and modded-nanogpt looks for documents by it. Packs
have it behind every document; here a file begins with it, and leaves it out behind its last document.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from dataeng.errors import FormatError
from dataeng.exports.blocks import BLOCK_TOKENS, document_ranges, token_blocks
from dataeng.exports.corpus import Domain
from dataeng.exports.layout import Job
from dataeng.exports.output import OutputFolder
from dataeng.formats.pack import PackShard

TOKENS_A_FILE = 10**8  # as in llm.c's dev/data/fineweb.py; readers hold a whole file in memory
LARGEST_FILE = 2**31 - 1
#: Magic, version and token type, as in `HEADERS_INFO` of data_common.py.
GPT2 = (20240520, 1, "<u2")
LLAMA3 = (20240801, 7, "<u4")


def write(job: Job, domain: Domain, out: OutputFolder, kind: tuple[int, int, str] = GPT2) -> None:
    magic, version, dtype = kind
    eos, number = job.corpus.eos_id, 0
    for shard in domain.shards():
        _check_ends(shard, eos)
        for first, last in document_ranges(shard.offsets, TOKENS_A_FILE):
            start, stop = int(shard.offsets[first]), int(shard.offsets[last])
            if stop - start > LARGEST_FILE:
                raise FormatError(f"{shard.folder / shard.name}: document {first} has {stop - start} tokens, too many.")
            header = np.zeros(256, "<i4")
            header[:3] = magic, version, stop - start
            with out.create(f"{domain.name}_train_{number:06d}.bin") as file:
                file.write(header)
                file.write(np.array([eos], dtype))
                for tokens in token_blocks(shard, start, stop - 1):
                    file.write(tokens.astype(dtype, copy=False))
            number += 1


write_llama3 = partial(write, kind=LLAMA3)


def _check_ends(shard: PackShard, eos: int) -> None:
    for first, last in document_ranges(shard.offsets, BLOCK_TOKENS):
        start, stop = int(shard.offsets[first]), int(shard.offsets[last])
        ends = shard.offsets[first + 1 : last + 1] - 1 - start
        if not (np.asarray(shard.tokens[start:stop])[ends] == eos).all():
            raise FormatError(
                f"{shard.folder / shard.name}: a document does not end with token {eos}, by which llm.c's files part "
                "documents. Write the pack with an EOS token behind every document."
            )


def point_at(job: Job) -> list[str]:
    lines = ["# llm.c: -i PATTERN, and -j PATTERN for validation; modded-nanogpt: data_path and train_files"]
    for domain in job.corpus.domains:
        lines.append(f'-i "{job.corpus.folder(job.output, domain) / f"{domain.name}_train_*.bin"}"')
    return [*lines, f"# BOS_ID of modded-nanogpt: {job.corpus.eos_id}"]
