"""LLM Foundry: the ``train_loader`` of its YAML, over the streams that ``dataeng export --to mds`` writes.

After ``llmfoundry/data/text_data.py`` at 8c8dd48 and `streaming.Stream`: a stream's ``proportion`` is its share of
samples, which are rows of one length and so a share of tokens. Stages are runs one after the other, each from the
checkpoint of the one before.
"""

from __future__ import annotations

import json
from pathlib import Path

from dataeng.mixture.handover.blend import Blend


def hand_over(blend: Blend, root: Path, seed: int = 17) -> str:
    """Returns one YAML document for each stage, with comments."""
    folder = root.resolve()
    lines = [
        f"# LLM Foundry: {blend.num_steps:,} batches of {blend.batch_size:,} rows of {blend.sequence_length:,} tokens.",
        "# The streams are those of: " + export_command(blend, root),
        *(f"# {caveat}." for caveat in blend.caveats()),
    ]
    if blend.masked_domains():
        lines.append(
            f"# The text loader reads no loss masks: all of {', '.join(blend.masked_domains())} becomes labels."
        )
    for index, stage in enumerate(blend.stages):
        if len(blend.stages) > 1:
            lines += ["---"] if index else []
            lines.append(f"# {stage.name}: batches {stage.first_step:,} to {stage.last_step:,}")
            if index:
                lines.append("# load_path: the last checkpoint of the stage before")
        lines += [
            f"max_duration: {stage.last_step}ba",
            f"max_seq_len: {blend.sequence_length}",
            f"global_train_batch_size: {blend.batch_size}",
            "train_loader:",
            "  name: text",
            "  dataset:",
            "    streams:",
        ]
        for domain, share in stage.shares.items():
            lines += [
                f"      {json.dumps(domain)}:",
                f"        local: {json.dumps(str(folder / domain), ensure_ascii=False)}",
                f"        proportion: {share!r}",
            ]
        lines += [
            f"    epoch_size: {(stage.last_step - stage.first_step + 1) * blend.batch_size}",
            f"    max_seq_len: {blend.sequence_length}",
            "    shuffle: true",
            f"    shuffle_seed: {seed + index}",
            "  drop_last: true",
            "  num_workers: 8",
        ]
    return "\n".join(lines) + "\n"


def export_command(blend: Blend, root: Path) -> str:
    """Returns the command that writes the streams."""
    return f"dataeng export {blend.manifest_path} --to mds --sequence-length {blend.sequence_length} --output {root}"
