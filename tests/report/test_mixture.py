"""The tables that `dataeng mix` prints."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dataeng.formats.mixture import Domain, MixtureManifest, MixtureStage, Order, Policy
from dataeng.report.mixture import (
    packs_are_here,
    preview_columns,
    print_mixture,
    print_preview,
    print_recipes,
)
from dataeng.report.mixture_preview import PreviewRow


def domain(tokens: int, weight: float, **changes: object) -> Domain:
    return Domain.model_validate(
        {"packs": ["p"], "num_documents": tokens // 100, "num_tokens": tokens, "weight": weight, **changes}
    )


def manifest(policy: Policy, schedule: list[MixtureStage] | None = None, **changes: object) -> MixtureManifest:
    return MixtureManifest(
        tokenizer_sha256="x",
        vocab_size=300,
        domains={"[b]ooks": domain(1_000, 0.5, **changes), "web": domain(99_000, 0.5)},
        schedule=schedule or [],
        policy=policy,
    )


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_table_and_warning(console: Console) -> None:
    print_mixture(console, manifest(Policy(name="temperature", temperature=float("inf"))), 10_000)
    printed = lines(console)
    assert printed[0].split() == ["domain", "documents", "tokens", "weight", "share", "tokens", "drawn", "epochs"]
    assert printed[1].split() == ["[b]ooks", "10", "1,000", "0.5000", "0.5000", "5,000", "5.00"]
    assert printed[2].split() == ["web", "990", "99,000", "0.5000", "0.5000", "5,000", "0.05"]
    assert printed[4] == "policy temperature inf; table for 10,000 training tokens."
    assert printed[5].startswith(
        "warning: '[b]ooks' would be repeated 5.0 times; beyond 4 repeated tokens help little."
    )
    assert len(printed) == 6


def test_stages_orders_and_fixed_weights(console: Console) -> None:
    stages = [
        MixtureStage(name="[i]first", until=0.7, weights={"[b]ooks": 0, "web": 1}),
        MixtureStage(name="last", until=1, weights={"[b]ooks": 0.5, "web": 0.5}),
    ]
    made = manifest(
        Policy(name="unimax", max_epochs=3, note="a [b]note"), stages, order=Order(by="[b]y"), reweighted=False
    )
    print_mixture(console, made, 1_000)
    printed = lines(console)
    assert printed[4] == "stage [i]first, up to 70%: 700 tokens" and printed[8] == "stage last, up to 100%: 300 tokens"
    assert printed[6].split() == ["web", "990", "99,000", "1.0000", "1.0000", "700", "0.01"]
    assert printed[7] == ""  # a domain that a stage does not draw is not in its table
    assert "policy unimax 3 (a [b]note); table for 1,000 training tokens." in printed
    assert "'[b]ooks' is read in the order of [b]y, the smallest first." in printed
    assert "the weight of '[b]ooks' is fixed: losses never move it." in printed


def row(stage: str, language: str | None, tokens: int) -> PreviewRow:
    return PreviewRow(stage, "web", language, 10, 100, 5, tokens, tokens / 100)


def test_the_preview_puts_small_languages_together(console: Console) -> None:
    rows = [row("all", name, count) for name, count in zip("abcdefgh", (50, 40, 30, 20, 10, 9, 8, 7), strict=True)]
    print_preview(console, [*rows, row("qa", None, 100)], 1_000)
    printed = lines(console)
    assert printed[1] == "what 1,000 tokens will contain"
    assert printed[2].split() == ["domain", "language", "documents", "of", "tokens", "drawn", "share", "epochs"]
    assert printed[8].split() == ["web", "f", "5", "10", "9", f"{9 / 174:.4f}", "0.09"]
    assert printed[9].split() == ["web", "2", "others", "10", "20", "15", f"{15 / 174:.4f}", "0.07"]
    assert printed[11] == "what stage qa will contain"
    assert printed[13].split() == ["web", "–", "5", "10", "100", "1.0000", "1.00"]


def test_the_preview_for_other_programs() -> None:
    columns, rows = preview_columns([row("all", None, 7)])
    assert columns[:4] == ["stage", "domain", "language", "num_documents"]
    assert rows == [("all", "web", None, 10, 100, 5, 7, 0.07)]


def test_whether_packs_are_here(tmp_path: Path) -> None:
    made, path = manifest(Policy(name="natural")), tmp_path / "m" / "mix.json"
    assert not packs_are_here(made, path)
    (tmp_path / "m" / "p").mkdir(parents=True)
    (tmp_path / "m" / "p" / "pack.json").write_text("{}")
    assert packs_are_here(made, path)


def test_recipes(console: Console) -> None:
    print_recipes(console)
    text = "\n".join(lines(console))
    assert "gpt3: Brown et al., arXiv 2005.14165" in text and "llama: Touvron et al., arXiv 2302.13971" in text
    assert ["stackexchange", "2", "1.03", "stackexchange,", "stack_exchange,", "qa"] in [
        line.split() for line in lines(console)
    ]
