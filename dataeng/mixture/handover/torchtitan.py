"""torchtitan: a Python module with a data source over packs, and one `DatasetMixConfig` for each stage.

torchtitan is configured in Python. Children are packed before they are mixed, so that weights count rows of one length
and so tokens. The packs are read where they are, loss masks included. After ``torchtitan/components/data`` at b5bcd76,
with Grain; release 0.3 and earlier ones mix nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from dataeng.mixture.handover.blend import Blend

MODULE = '''\
"""{title}

Put this file where Python finds it, and in a config function: `dataloader=dataloader({first!r})`.
{notes}"""

from dataclasses import dataclass

import numpy as np

from torchtitan.components.data import (
    ConcatThenSplitPackingConfig,
    DatasetMixConfig,
    GrainDataLoader,
    RandomAccessDataSource,
    SampleProcessor,
    SingleDatasetConfig,
    TextSequence,
    WeightedDataset,
)
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.config import Configurable

DTYPE = {dtype!r}  # of the tokens in .bin, little-endian


class PackSource(Configurable, RandomAccessDataSource):
    """Documents of Megatron .bin/.idx pairs, each as (tokens, mask); the mask is None where every token counts."""

    @dataclass(kw_only=True, slots=True)
    class Config(Configurable.Config):
        prefixes: tuple[str, ...]
        masked: tuple[bool, ...]

    def __init__(self, config, *, dataset_iteration_policy):
        del dataset_iteration_policy
        self.shards, self.first_documents = [], [0]
        for prefix, masked in zip(config.prefixes, config.masked, strict=True):
            with open(f"{{prefix}}.idx", "rb") as file:
                head = file.read(34)
                num_documents = int.from_bytes(head[18:26], "little")
                lengths = np.fromfile(file, "<i4", num_documents)
            offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
            tokens = np.memmap(f"{{prefix}}.bin", np.dtype(DTYPE).newbyteorder("<"), mode="r")
            mask = np.memmap(f"{{prefix}}.mask", np.uint8, mode="r") if masked else None
            self.shards.append((offsets, tokens, mask))
            self.first_documents.append(self.first_documents[-1] + num_documents)

    def __len__(self):
        return self.first_documents[-1]

    def __getitem__(self, index):
        shard = int(np.searchsorted(self.first_documents, index, side="right")) - 1
        offsets, tokens, mask = self.shards[shard]
        start, end = offsets[index - self.first_documents[shard] :][:2]
        return np.asarray(tokens[start:end], np.int64), None if mask is None else np.asarray(mask[start:end])


class NextTokens(SampleProcessor):
    """Inputs and next-token labels of a document; documents of one token have none."""

    @dataclass(kw_only=True, slots=True)
    class Config(SampleProcessor.Config):
        pass

    def __init__(self, config, *, context):
        del config, context

    def __call__(self, sample, rng):
        del rng
        tokens, mask = sample
        if len(tokens) < 2:
            return None
        labels = tokens[1:] if mask is None else np.where(mask[1:] != 0, tokens[1:], IGNORE_INDEX)
        return TextSequence(input_ids=tokens[:-1], labels=labels)


# domain: (prefixes, whether each has a .mask)
PACKS = {packs}

# stage: (last training step, shares of tokens)
STAGES = {stages}


def mixture(stage):
    """The mix of one stage, by name."""
    _, shares = STAGES[stage]
    return DatasetMixConfig(
        datasets=tuple(
            WeightedDataset(
                dataset=ConcatThenSplitPackingConfig(
                    dataset=SingleDatasetConfig(
                        source=PackSource.Config(prefixes=PACKS[domain][0], masked=PACKS[domain][1]),
                        processor=NextTokens.Config(),
                        post_filters=(lambda sample: sample is not None,),
                    )
                ),
                weight=weight,
            )
            for domain, weight in shares.items()
        )
    )


def dataloader(stage, seed=42):
    """The loader of one stage, by name."""
    return GrainDataLoader.Config(dataset=mixture(stage), seed=seed, shuffle=True, repeat=True)
'''


def hand_over(blend: Blend) -> str:
    """Returns the module's source."""
    packs, dtype = {}, "uint16"
    for domain in blend.manifest.domains:
        prefixes, masked = [], []
        for folder, pack in blend.packs(domain):
            dtype = pack.dtype
            for shard in pack.shards:
                if shard.num_documents:
                    prefixes.append(str(folder / shard.name))
                    masked.append("mask" in shard.files)
        packs[domain] = (tuple(prefixes), tuple(masked))
    notes = [f"{caveat[0].upper()}{caveat[1:]}." for caveat in blend.caveats()]
    if len(blend.stages) > 1:
        notes.append(
            "Stages are runs one after the other with one checkpoint folder: training.steps is the stage's last step, "
            'and when a stage begins, checkpoint.exclude_from_loading=["dataloader"].'
        )
    return MODULE.format(
        title=f"A mixture for torchtitan: {blend.num_steps:,} steps of {blend.batch_size:,} rows of "
        f"{blend.sequence_length:,} tokens.",
        first=blend.stages[0].name,
        notes="".join(f"{note}\n" for note in notes),
        dtype=dtype,
        packs=_literal(packs),
        stages=_literal({stage.name: (stage.last_step, stage.shares) for stage in blend.stages}),
    )


def _literal(mapping: Mapping[str, object]) -> str:
    rows = "".join(f"    {key!r}: {value!r},\n" for key, value in mapping.items())
    return "{\n" + rows + "}"
