"""nanotron: the ``data_stages`` of its YAML, over the folders that ``dataeng export --to datatrove`` writes.

After `DatasetStageArgs` and `NanosetDatasetsArgs` of ``src/nanotron/config/config.py`` at 2411b02. Weights blend
samples of one length, so they are shares of tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

from dataeng.mixture.handover.blend import Blend

LARGEST_2_BYTE_VOCABULARY = 65_534  # nanotron: "2 for vocab sizes < 65535"


def hand_over(blend: Blend, root: Path, seed: int = 42) -> str:
    """Returns the section as YAML, with comments."""
    folder = root.resolve()
    vocab_size = blend.manifest.vocab_size
    lines = [
        f"# nanotron: {blend.num_steps:,} steps of {blend.batch_size:,} rows of {blend.sequence_length:,} tokens, so "
        f"tokens.train_steps is {blend.num_steps}.",
        "# The folders are those of: " + export_command(blend, root),
        *(f"# {caveat}." for caveat in blend.caveats()),
        "data_stages:",
    ]
    for stage in blend.stages:
        lines += [
            f"- name: {json.dumps(stage.name, ensure_ascii=False)}",
            f"  start_training_step: {stage.first_step}",
            "  data:",
            f"    seed: {seed}",
            "    num_loading_workers: 1",
            "    dataset:",
            "      dataset_folder:",
            *(f"      - {_quoted(folder / domain)}" for domain in stage.shares),
            "      dataset_weights:",
            *(f"      - {share!r}" for share in stage.shares.values()),
            f"      tokenizer_name: {json.dumps(_tokenizer_name(folder, list(stage.shares)), ensure_ascii=False)}",
            f"      vocab_size: {vocab_size}",
            f"      token_size_in_bytes: {2 if vocab_size <= LARGEST_2_BYTE_VOCABULARY else 4}",
        ]
    return "\n".join(lines) + "\n"


def export_command(blend: Blend, root: Path) -> str:
    """Returns the command that writes the folders."""
    return f"dataeng export {blend.manifest_path} --to datatrove --output {root}"


def _tokenizer_name(folder: Path, domains: list[str]) -> str:
    """Returns the name that the export's own metadata gives, since nanotron compares the two."""
    for domain in domains:
        for path in sorted((folder / domain).glob("*.metadata")):
            name, separator, _ = path.read_text().partition("\n")[0].rpartition("|")
            if separator:
                return name
    return str(folder / "tokenizer")


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
