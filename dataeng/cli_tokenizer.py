"""The command that trains tokenizers: a part of the command line, as thin as the rest of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def train_tokenizer(
    inputs: Annotated[list[Path], typer.Argument(help="A run folder, or JSON Lines and Parquet.", metavar="INPUT…")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.", metavar="FOLDER")],
    vocab_size: Annotated[int, typer.Option(help="Tokens, the special ones too.")] = 32_000,
    algorithm: Annotated[
        str, typer.Option(help="byte_level_bpe, byte_fallback_bpe, unigram or wordpiece.")
    ] = "byte_level_bpe",
    pre_tokenization: Annotated[str | None, typer.Option(help="gpt2, gpt4, llama3, qwen; bert for wordpiece.")] = None,
    digits: Annotated[str | None, typer.Option(help="individual or groups_of_three.")] = None,
    special_tokens: Annotated[
        list[str] | None,
        typer.Option("--special-token", help="One, or a set: @chatml, @fim, @roles, …", metavar="TOKEN"),
    ] = None,
    sample: Annotated[str, typer.Option(help="How much text to train on, e.g. 64MB.", metavar="SIZE")] = "64MB",
    language_temperature: Annotated[float, typer.Option(help="1 is natural, larger gives small ones more.")] = 3.3,
    domain_temperature: Annotated[float, typer.Option(help="The same for domains.")] = 2.0,
    min_frequency: Annotated[int, typer.Option(help="A pair must be there so often to become a token.")] = 2,
    character_coverage: Annotated[float, typer.Option(help="Share of characters that get tokens.")] = 0.9995,
    seed: Annotated[int, typer.Option(help="Draws the samples.")] = 0,
    references: Annotated[
        list[Path] | None, typer.Option("--reference", help="A tokenizer to compare with.", metavar="PATH")
    ] = None,
    report: Annotated[
        str, typer.Option(help="How much text of each domain and language to compare on.", metavar="SIZE")
    ] = "200kB",
    output_format: Annotated[str, typer.Option("--format", help="table, csv or json (one object a line).")] = "table",
) -> None:
    """Train a tokenizer on documents, and compare it with others, language by language."""
    from dataeng.report.plain import check_format, write_plain
    from dataeng.report.terminal import console
    from dataeng.report.tokenizer_report import print_report
    from dataeng.report.train_tokenizer import parse_size, train_and_measure

    check_format(output_format)
    options = {
        "algorithm": algorithm,
        "vocab_size": vocab_size,
        "pre_tokenization": pre_tokenization,
        "digits": digits,
        "special_tokens": special_tokens or None,
        "sample_bytes": parse_size(sample),
        "language_temperature": language_temperature,
        "domain_temperature": domain_temperature,
        "min_frequency": min_frequency,
        "character_coverage": character_coverage,
        "seed": seed,
    }
    trained = train_and_measure(inputs, output, options, references or (), parse_size(report))
    if output_format == "table":
        print_report(console(), trained.report)
        console().print(trained.summary, highlight=False, soft_wrap=True)
    else:
        write_plain(sys.stdout, trained.report.columns, trained.report.rows(), output_format)
