"""Megatron-LM: ``--data-path WEIGHT PREFIX …``.

Its `BlendedDataset` draws samples of one length in proportion to the weights, so they are shares of tokens. Packs are
read where they are, shard by shard: a domain's share is split among its shards by their tokens. Stages are phases
(``--phase-transition-iterations``): Megatron-LM saves and stops after each one, and is started again with the next
one's ``--data-path``. After ``megatron/training/arguments.py`` and ``training.py`` at d98e8a6.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from dataeng.mixture.handover.blend import Blend


def hand_over(blend: Blend, root: Path | None) -> str:
    """Returns the arguments, with comments. With ``root``, prefixes are those of ``dataeng export --to megatron``."""
    lines = [
        f"# Megatron-LM, {blend.num_steps:,} iterations. Weights are shares of tokens: samples have one length.",
    ]
    if blend.masked_domains():
        lines.append(
            f"# Megatron-LM reads no loss masks: every token of {', '.join(blend.masked_domains())} becomes a label."
        )
    lines += [f"# {caveat}." for caveat in blend.caveats()]
    common = (
        f"--seq-length {blend.sequence_length} --global-batch-size {blend.batch_size} "
        f"--train-samples {blend.num_steps * blend.batch_size} --split 100,0,0"
    )
    if len(blend.stages) > 1:
        ends = ",".join(str(stage.last_step) for stage in blend.stages[:-1])
        common += f" --phase-transition-iterations {ends}"
        lines.append("# Each phase ends with a checkpoint; start the same command again with the next --data-path.")
    lines.append(common)
    for stage in blend.stages:
        if len(blend.stages) > 1:
            lines.append(f"# {stage.name}: iterations {stage.first_step:,} to {stage.last_step:,}")
        pairs = [
            f"{weight:.8g} {shlex.quote(prefix)}"
            for domain, share in stage.shares.items()
            for weight, prefix in _prefixes(blend, domain, share, root)
        ]
        lines.append(f"--data-path {' '.join(pairs)}")
    return "\n".join(lines) + "\n"


def _prefixes(blend: Blend, domain: str, share: float, root: Path | None) -> list[tuple[float, str]]:
    if root is not None:
        return [(share, str(root.resolve() / domain / domain))]
    shards = [
        (shard.num_tokens, str(folder / shard.name))
        for folder, pack in blend.packs(domain)
        for shard in pack.shards
        if shard.num_tokens
    ]
    total = sum(tokens for tokens, _ in shards)
    return [(share * tokens / total, prefix) for tokens, prefix in shards]
