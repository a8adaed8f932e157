"""What `dataeng mix` takes from a person, and the table that it prints."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dataeng.errors import ConfigError
from dataeng.formats.mixture import Domain, MixtureManifest, Policy
from dataeng.mixture.build import mixture_table
from dataeng.report.mixture import choose_policy, pack_folders, parse_tokens, parse_weights, print_mixture
from tests.small_run import SmallRun


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500000", 500_000), ("500k", 500_000), ("1.5B", 1_500_000_000), (" 20M ", 20_000_000), ("2t", 2 * 10**12)],
)
def test_numbers_of_tokens(text: str, expected: int) -> None:
    assert parse_tokens(text) == expected


@pytest.mark.parametrize("text", ["", "k", "-5", "1e9", "5 000", "1.B", "10q", "٣k"])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--tokens .*expected a number such as 500000, 500k, 20M or 1\.5B"):
        parse_tokens(text)


def test_weights() -> None:
    assert parse_weights(["web=0.8", "code=.2"]) == {"web": 0.8, "code": 0.2}
    for wrong in ("web", "web=", "web=x", "=", "web:0.5"):
        with pytest.raises(ConfigError, match=r"expected DOMAIN=NUMBER, e\.g\. --weight code=0\.2"):
            parse_weights([wrong])
    with pytest.raises(ConfigError, match=r"--weight web=0\.3: 'web' has a weight of 0\.2 already"):
        parse_weights(["web=0.2", "web=0.3"])


def test_policies() -> None:
    assert choose_policy(None, None) == Policy(name="natural")
    assert choose_policy(2.0, None) == Policy(name="temperature", temperature=2.0)
    assert choose_policy(float("inf"), None).temperature == float("inf")
    assert choose_policy(None, {"web": 1.0}) == Policy(name="given")
    with pytest.raises(ConfigError, match="exclude each other"):
        choose_policy(2.0, {"web": 1.0})
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="expected a number above 0"):
            choose_policy(wrong, None)


def test_runs_and_packs(finished: SmallRun, tmp_path: Path) -> None:
    packs = [finished.run_dir / "packs" / domain for domain in ("code", "web")]
    assert pack_folders([finished.run_dir]) == (packs, finished.run_dir)
    assert pack_folders(packs) == (packs, None)
    assert pack_folders([finished.run_dir, packs[0]]) == ([*packs, packs[0]], None)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"has no packs \(packs/DOMAIN/pack\.json\)"):
            pack_folders([folder])


def test_table_and_warning() -> None:
    def domain(tokens: int, weight: float) -> Domain:
        return Domain(packs=["p"], num_documents=tokens // 100, num_tokens=tokens, weight=weight)

    manifest = MixtureManifest(
        tokenizer_sha256="x",
        vocab_size=300,
        domains={"[b]ooks": domain(1_000, 0.5), "web": domain(99_000, 0.5)},
        policy=Policy(name="temperature", temperature=float("inf")),
    )
    console = Console(file=io.StringIO(), width=120)
    print_mixture(console, manifest, mixture_table(manifest, 10_000), 10_000, Path("mix.json"))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[0].split() == ["domain", "documents", "tokens", "weight", "share", "tokens", "drawn", "epochs"]
    assert lines[1].split() == ["[b]ooks", "10", "1,000", "0.5000", "0.5000", "5,000", "5.00"]
    assert lines[2].split() == ["web", "990", "99,000", "0.5000", "0.5000", "5,000", "0.05"]
    assert lines[4] == "policy temperature inf; table for 10,000 training tokens. Wrote mix.json."
    assert lines[5].startswith("warning: '[b]ooks' would be repeated 5.0 times; beyond 4 repeated tokens help little.")
    assert len(lines) == 6


def test_a_manifest_with_learned_weights_is_not_overwritten_unawares(tmp_path: Path) -> None:
    from dataeng.formats.mixture import Domain, LearnedWeights, MixtureManifest, Policy, save_mixture
    from dataeng.report.mixture import refuse_to_lose_history

    path = tmp_path / "mix.json"
    refuse_to_lose_history(path, force=False)
    domain = Domain(packs=["web"], num_documents=1, num_tokens=10, weight=1.0)
    manifest = MixtureManifest(
        tokenizer_sha256="x", vocab_size=300, domains={"web": domain}, policy=Policy(name="natural")
    )
    save_mixture(path, manifest)
    refuse_to_lose_history(path, force=False)
    learned = LearnedWeights(run="r", step=3, weights={"web": 1.0}, losses={"web": 2.0})
    save_mixture(path, manifest.model_copy(update={"history": [learned]}))
    with pytest.raises(ConfigError, match="holds the weights of 1 training runs"):
        refuse_to_lose_history(path, force=False)
    refuse_to_lose_history(path, force=True)
