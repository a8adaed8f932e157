"""A small run whose decisions can be checked by hand: two rules steps, one per domain, with a preset of one's own."""

from __future__ import annotations

import json
from pathlib import Path

from tests.small_run import SmallRun

PIPELINE = """\
name: rules
sources:
  - read_files: {paths: ["web/*.jsonl"], domain: web}
    name: web
  - read_files: {paths: ["code/*.jsonl"], domain: code}
    name: code
stages:
  - quality_signals: {language: en}
    where: domain in ('web', 'code')
  - apply_rules: {presets: [presets/mine.yaml]}
    where: domain == 'web'
    name: web_rules
  - apply_rules: {presets: [presets/other.yaml]}
    where: domain == 'code'
    name: code_rules
  - deduplicate_exact: {partitions: 1}
  - train_tokenizer: {vocab_size: 300}
  - write_packs:
"""

MINE = """\
name: mine@home
source: these tests
parameters: {min_words: 5, max_hash_ratio: 0.2, max_dup_lines: 0.3}
rules:
  - {name: mine_short, drop: quality_words < min_words}
  - {name: mine_hashes, drop: quality_hashes / quality_words > max_hash_ratio}
  - {name: mine_dup_lines, drop: quality_dup_break_lines / quality_break_lines > max_dup_lines}
"""
OTHER = """\
name: other@home
source: these tests
parameters: {min_words: 2}
rules:
  - {name: other_short, drop: quality_words < min_words}
"""

EIGHT = "one two three four five six seven eight"
THREE = "one two three"
HASHES = "# # one two three four five six"  # 2 of 8 words
REPEATED = "same line here now\nsame line here now\nanother line here today"  # 1 of 3 lines
WEB = [
    {"url": "https://a.example/eight", "text": EIGHT},
    {"url": "https://a.example/three", "text": THREE},
    {"url": "https://a.example/hashes", "text": HASHES},
    {"url": "https://a.example/repeated", "text": REPEATED},
]
WEB_2 = [{"url": "https://a.example/copy", "text": EIGHT}, {"text": None}]
CODE = [{"url": None, "text": "x = 1\ny = 2\n"}, {"url": None, "text": "pass"}]


class RulesRun(SmallRun):
    """The pipeline in a folder, with its presets beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.run_dir = folder, folder / "rules.yaml", folder / "runs" / "rules"
        self.mine, self.other = folder / "presets" / "mine.yaml", folder / "presets" / "other.yaml"
        for name, records in (("web/0.jsonl", WEB), ("web/1.jsonl", WEB_2), ("code/c0.jsonl", CODE)):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        self.mine.parent.mkdir()
        self.mine.write_text(MINE)
        self.other.write_text(OTHER)
        self.file.write_text(PIPELINE)
