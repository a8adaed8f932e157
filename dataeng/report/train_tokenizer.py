"""What ``dataeng train-tokenizer`` does: two samples of the documents, one to train on and one to measure with."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from dataeng.errors import ConfigError, InputError, nearest
from dataeng.formats.atomic import write_bytes
from dataeng.report.tokenizer_documents import documents
from dataeng.report.tokenizer_report import load_reference, measure
from dataeng.stages.tokens import tokenizer_sample
from dataeng.stages.tokens.special_tokens import roles
from dataeng.stages.tokens.tokenizer_training import train_tokenizer
from dataeng.stages.tokens.train_tokenizer import TrainTokenizer

SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
#: What was read but not yet thinned out may be so large.
HELD_BYTES = 64 << 20


@dataclass(frozen=True)
class Trained:
    """A tokenizer on disk, how it compares, and what to say about it."""

    report: pl.DataFrame
    summary: str


def parse_size(text: str) -> int:
    """Returns a number of bytes from ``64MB``, ``1.5GiB`` or ``1000``.

    Raises:
      ConfigError: not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    unit = SIZES.get((match[2] or "b") if match else "")
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise ConfigError(f"'{text}' is not a size; write 64MB, 1.5GB or 500kB.")
    return int(float(match[1]) * unit)


def train_and_measure(
    inputs: Sequence[Path], folder: Path, options: Mapping[str, object], references: Sequence[Path], report_bytes: int
) -> Trained:
    """Trains on a sample of the documents and writes ``tokenizer.json``, ``tokenizer_config.json``, ``report.parquet``.

    Beside them, ``training.json`` has the options and what the sample was made of.

    Args:
      inputs: as `documents` takes them.
      options: those of the stage ``train_tokenizer``.
      report_bytes: how much of every domain and language is measured with.

    Raises:
      ConfigError, InputError, FormatError: nothing is written.
    """
    stage = _stage(options)
    loaded = _named([load_reference(path) for path in references])
    corpus, probe = _samples(inputs, stage, report_bytes)
    sizes = tokenizer_sample.group_bytes([corpus])
    limits = tokenizer_sample.budgets(sizes, stage.sample_bytes, stage.domain_temperature, stage.language_temperature)
    content = train_tokenizer(tokenizer_sample.sample([corpus], limits), stage.recipe())

    from tokenizers import Tokenizer

    name = _free("trained", loaded)
    report = measure(probe, {name: Tokenizer.from_str(content.decode()), **loaded})
    vocab_size = Tokenizer.from_str(content.decode()).get_vocab_size()
    _write(folder, content, stage, report, sizes, limits)
    taken, total = sum(limits.values()), sum(sizes.values())
    summary = (
        f"{vocab_size:,} tokens ({stage.algorithm}, {stage.recipe().preset}) from {taken / 1e6:.1f} MB of "
        f"{total / 1e6:.1f} MB in {len(sizes)} groups → {folder / 'tokenizer.json'}"
    )
    return Trained(report, summary)


def _stage(options: Mapping[str, object]) -> TrainTokenizer:
    try:
        return TrainTokenizer.model_validate({key: value for key, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]) if first["loc"] else "options"
        expected = first.get("ctx", {}).get("expected", "")
        known = re.findall(r"'([^']+)'", expected)
        hint = nearest(str(first["input"]), known) if known else f": {first['msg']}"
        raise ConfigError(f"--{option.replace('_', '-')} {first['input']}{hint}") from error


def _samples(inputs: Sequence[Path], stage: TrainTokenizer, report_bytes: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns what `TrainTokenizer.sample` takes, and the texts to measure with, from one pass over the documents."""
    held: dict[str, list[pl.DataFrame]] = {"corpus": [], "probe": []}
    limits = {"corpus": stage.sample_bytes, "probe": report_bytes}

    def thin_out(name: str) -> None:
        if held[name]:
            held[name] = [tokenizer_sample.combine(pl.concat(held[name]), limits[name])]

    size = 0
    for batch in documents(inputs):
        held["corpus"].append(stage.emit(batch))
        held["probe"].append(tokenizer_sample.rows(batch, stage.seed + 1, tokenizer_sample.GROUP))
        size += int(batch.get_column("text").str.len_bytes().sum())
        if size > HELD_BYTES:
            thin_out("corpus")
            thin_out("probe")
            size = 0
    thin_out("corpus")
    thin_out("probe")
    if not held["corpus"]:
        raise InputError("there are no documents to train a tokenizer on.")
    probe = held["probe"][0].filter(pl.col("id").is_not_null())
    return held["corpus"][0], probe.sort("order", "id").select("text", "domain", "language")


def _named(references: Sequence[tuple[str, object]]) -> dict[str, object]:
    named: dict[str, object] = {}
    for name, tokenizer in references:
        named[_free(name, named)] = tokenizer
    return named


def _free(name: str, taken: Mapping[str, object]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def _write(
    folder: Path,
    content: bytes,
    stage: TrainTokenizer,
    report: pl.DataFrame,
    sizes: Mapping[tuple[str, str], int],
    limits: Mapping[tuple[str, str], int],
) -> None:
    import importlib.metadata

    parquet = io.BytesIO()
    report.write_parquet(parquet)
    specials = stage.recipe().specials
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **roles(specials)}
    training = {
        "options": stage.model_dump(mode="json", exclude={"partitions"}),
        "special_tokens": specials,
        "tokenizer_sha256": hashlib.sha256(content).hexdigest(),
        "tokenizers_version": importlib.metadata.version("tokenizers"),
        "sample": [
            {"domain": domain, "language": language, "corpus_bytes": size, "sample_bytes": limits[domain, language]}
            for (domain, language), size in sizes.items()
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "report.parquet", parquet.getvalue())
    write_bytes(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n")
    write_bytes(folder / "training.json", json.dumps(training, indent=2, ensure_ascii=False).encode() + b"\n")
    write_bytes(folder / "tokenizer.json", content)
