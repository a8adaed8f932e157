"""datatrove's ``.ds`` token files, which nanotron trains on.

Layout after ``datatrove/pipeline/tokens/tokenizer.py`` (`TokenizedFile`), for every shard of the packs::

    web_00000_unshuffled.ds           tokens, uint16 or uint32, headerless
    web_00000_unshuffled.ds.index     u64: the end of every document, in tokens; no leading 0, no count
    web_00000_unshuffled.ds.loss      (with masks) one byte a token: 1 where it is trained on
    web_00000_unshuffled.ds.metadata  text: "tokenizer|bytes a token", tokens, tokens for people

All files of a domain are in one folder without subfolders, so that both ways to find them lead to the same: datatrove's
pattern ``.ds`` and nanotron's glob ``FOLDER/*.ds``. nanotron reads the tokenizer and the token size from the metadata.
"""

from __future__ import annotations

import numpy as np

from dataeng.exports.blocks import mask_blocks, token_blocks
from dataeng.exports.corpus import Domain, narrowest_dtype
from dataeng.exports.layout import Job
from dataeng.exports.output import OutputFolder

LARGEST_2_BYTE_VOCABULARY = 65_534  # nanotron: "2 for vocab sizes < 65535"; datatrove is told the size


def write(job: Job, domain: Domain, out: OutputFolder) -> None:
    dtype = narrowest_dtype(job.corpus.vocab_size, LARGEST_2_BYTE_VOCABULARY)
    for number, shard in enumerate(domain.shards()):
        name = f"{domain.name}_{number:05d}_unshuffled.ds"
        with out.create(name) as file:
            for tokens in token_blocks(shard):
                file.write(tokens.astype(dtype, copy=False))
        out.write(f"{name}.index", shard.offsets[1:].astype("<u8").tobytes())
        if job.masked:
            with out.create(f"{name}.loss") as file:
                for mask in mask_blocks(shard):
                    file.write((mask != 0).view(np.uint8))
        lines = (f"{_tokenizer(job)}|{dtype.itemsize}", str(len(shard.tokens)), _for_people(len(shard.tokens)))
        out.write(f"{name}.metadata", "\n".join(lines).encode())


def point_at(job: Job) -> list[str]:
    corpus = job.corpus
    size = narrowest_dtype(corpus.vocab_size, LARGEST_2_BYTE_VOCABULARY).itemsize
    folders = [corpus.folder(job.output, domain) for domain in corpus.domains]
    return [
        "# datatrove",
        *(f"DatatroveFolderDataset({str(folder)!r}, seq_len=SEQ_LEN, token_size={size})" for folder in folders),
        "# nanotron, in a data stage of its YAML",
        "dataset:",
        "  dataset_folder:",
        *(f"  - {folder}" for folder in folders),
        f"  dataset_weights: [{', '.join(f'{weight:.6g}' for weight in corpus.weights().values())}]",
        f"  tokenizer_name: {_tokenizer(job)}",
        f"  token_size_in_bytes: {size}",
        f"  vocab_size: {corpus.vocab_size}",
    ]


def _tokenizer(job: Job) -> str:
    return job.options.tokenizer_name or str(job.output / "tokenizer")


def _for_people(number: float) -> str:
    """Returns a count in three digits with an SI prefix, as datatrove writes it (``humanize.metric(…, unit="T")``)."""
    prefixes = iter(("", "k", "M", "G", "T"))
    prefix = next(prefixes)
    while number >= 999.5:
        number, prefix = number / 1000, next(prefixes)
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {prefix}T"
