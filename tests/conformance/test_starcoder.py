"""StarCoder's filter against its formulas, on source files and on files that it is there to drop."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

import dataeng
from dataeng.presets import load_preset
from dataeng.presets.judgement import first_broken_rule, reasons, rules_in_order
from dataeng.stages.quality.quality_signals import QualitySignals

SAMPLE = Path(dataeng.__file__).parent / "sample/code/code.jsonl.gz"


def starcoder(text: str) -> str | None:
    """``add_stats`` and ``basic_filters`` of bigcode-dataset's filtering.py, with its default thresholds."""
    lengths = [len(line) for line in text.splitlines()]
    if max(lengths) > 1000:
        return "starcoder_line_max"
    if np.mean(lengths) > 100:
        return "starcoder_line_mean"
    return "starcoder_alpha_frac" if np.mean([c.isalnum() for c in text]) < 0.25 else None


def test_decisions_are_the_code_s() -> None:
    texts: list[str] = [json.loads(line)["text"] for line in gzip.decompress(SAMPLE.read_bytes()).splitlines()]
    minified = [text.replace("\n", " ") for text in texts[:10]]
    wide = ["\n".join(text.split("\n")[i] * 6 for i in range(40)) for text in texts[10:30]]
    tables = ["\n".join("+--" * n + "|  |" for _ in range(30)) + text[:200] for n, text in enumerate(texts[:20])]
    texts += minified + wide + tables
    stage = QualitySignals(signals="all", language="en")
    stage.setup({})
    signals = stage.apply(pl.DataFrame({"text": texts}))
    rules = rules_in_order((load_preset("starcoder"),))
    found = reasons(first_broken_rule(signals, rules), rules).to_list()
    assert found == [starcoder(text) for text in texts]
    assert all(count > 5 for count in Counter(found).values()) and len(Counter(found)) == 4, Counter(found)
