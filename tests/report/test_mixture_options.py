"""What the options of `dataeng mix` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataeng.errors import ConfigError
from dataeng.formats.mixture import (
    Domain,
    LearnedWeights,
    MixtureManifest,
    Order,
    Policy,
    save_mixture,
)
from dataeng.mixture.weighting import WantedStage
from dataeng.report.mixture_options import (
    choose,
    pack_folders,
    parse_epoch_caps,
    parse_mapping,
    parse_orders,
    parse_packing,
    parse_weights,
    refuse_to_lose_history,
)
from tests.small_run import SmallRun


def test_weights() -> None:
    assert parse_weights(["web=0.8", "code=.2"]) == {"web": 0.8, "code": 0.2}
    for wrong in ("web", "web=", "web=x", "=", "web:0.5"):
        with pytest.raises(ConfigError, match=r"expected DOMAIN=NUMBER, e\.g\. --weight code=0\.2"):
            parse_weights([wrong])
    with pytest.raises(ConfigError, match=r"--weight web=0\.3: 'web' has a weight of 0\.2 already"):
        parse_weights(["web=0.2", "web=0.3"])


TOKENS = {"code": 100, "web": 300}


def test_policies() -> None:
    assert choose(TOKENS, None).policy == Policy(name="natural")
    assert choose(TOKENS, None, temperature=2.0).policy == Policy(name="temperature", temperature=2.0)
    assert choose(TOKENS, None, temperature=float("inf")).policy.temperature == float("inf")
    assert choose(TOKENS, None, alpha=0.5).policy == Policy(name="temperature", temperature=2.0)
    assert choose(TOKENS, None, alpha=0.0).policy.temperature == float("inf")
    assert choose(TOKENS, 500, unimax=2.0).policy == Policy(name="unimax", max_epochs=2.0, token_budget=500)
    given = choose(TOKENS, None, weights={"web": 1.0})
    assert (given.policy, given.weights) == (Policy(name="given"), {"web": 1.0})
    from_file = choose(TOKENS, None, weights_file=(Path("a/w.csv"), {"web": 1.0}))
    assert (from_file.policy, from_file.weights) == (Policy(name="given", note="w.csv"), {"web": 1.0})
    stages = [WantedStage("one", 1.0, Policy(name="natural"))]
    staged = choose(TOKENS, 700, schedule=(Path("b/s.yaml"), stages))
    assert staged.policy == Policy(name="given", token_budget=700, note="s.yaml: one") and staged.schedule == stages


def test_a_recipe_says_where_it_is_from() -> None:
    tokens = {"web": 9, "c4": 1, "code": 1, "wiki": 1, "books": 1, "arxiv": 1, "stack-exchange": 1}
    choice = choose(tokens, None, recipe="llama")
    assert choice.policy.note.startswith("recipe llama: Touvron et al., arXiv 2302.13971")
    assert choice.weights is not None and choice.weights["web"] == pytest.approx(0.67)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 2.0, "weights": {"web": 1.0}}, "--temperature and --weight exclude each other"),
        ({"alpha": 0.3, "unimax": 1.0, "recipe": "gpt3"}, "--alpha and --unimax and --recipe exclude each other"),
        ({"temperature": 0.0}, "--temperature 0: expected a number above 0"),
        ({"temperature": -1.0}, "expected a number above 0"),
        ({"temperature": float("nan")}, "expected a number above 0"),
        ({"alpha": -0.1}, "--alpha -0.1: expected a number of at least 0"),
        ({"alpha": float("inf")}, "expected a number of at least 0"),
        ({"unimax": 0.0}, "--unimax 0: expected a number of epochs above 0"),
        ({"unimax": 4.0}, "--unimax needs --tokens"),
        ({"mapping": {"web": "c4"}}, "--map belongs to --recipe"),
        ({"recipe": "lama"}, "unknown recipe 'lama'; did you mean 'llama'"),
    ],
)
def test_wrong_choices(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(TOKENS, None, **options)  # type: ignore[arg-type]


def test_epoch_caps() -> None:
    domains = ["code", "web"]
    assert parse_epoch_caps([], domains) == {}
    assert parse_epoch_caps(["4"], domains) == {"code": 4, "web": 4}
    assert parse_epoch_caps(["web=2", "4"], domains) == {"code": 4, "web": 2}
    assert parse_epoch_caps(["web=2.5"], domains) == {"web": 2.5}
    with pytest.raises(ConfigError, match="--max-epochs web=x: expected NUMBER or DOMAIN=NUMBER"):
        parse_epoch_caps(["web=x"], domains)
    with pytest.raises(ConfigError, match="--max-epochs 5: there is another cap for all domains"):
        parse_epoch_caps(["4", "5"], domains)
    with pytest.raises(ConfigError, match="--max-epochs web=5: there is another cap for web"):
        parse_epoch_caps(["web=4", "web=5"], domains)


def test_orders() -> None:
    assert parse_orders(["web=num_tokens", "code=quality.score:desc", "qa=x:asc"]) == {
        "web": Order(by="num_tokens"),
        "code": Order(by="quality.score", descending=True),
        "qa": Order(by="x"),
    }
    for wrong in ("web", "web=", "=x", "web=x:down", "web=:desc"):
        with pytest.raises(ConfigError, match="expected DOMAIN=COLUMN or DOMAIN=COLUMN:desc"):
            parse_orders([wrong])
    with pytest.raises(ConfigError, match="'web' is ordered by 'a' already"):
        parse_orders(["web=a", "web=b"])


def test_mapping_and_packing() -> None:
    assert parse_mapping(["a=x", "b=x"]) == {"a": "x", "b": "x"}
    for wrong in (["a"], ["a="], ["=x"], ["a=x", "a=y"]):
        with pytest.raises(ConfigError, match="expected one DOMAIN=PART for a domain"):
            parse_mapping(wrong)
    assert parse_packing("best-fit") == "best-fit"
    with pytest.raises(ConfigError, match="--packing bestfit is unknown; did you mean 'best-fit'"):
        parse_packing("bestfit")


def test_runs_and_packs(finished: SmallRun, tmp_path: Path) -> None:
    packs = [finished.run_dir / "packs" / domain for domain in ("code", "web")]
    assert pack_folders([finished.run_dir]) == (packs, finished.run_dir)
    assert pack_folders(packs) == (packs, None)
    assert pack_folders([finished.run_dir, packs[0]]) == ([*packs, packs[0]], None)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"has no packs \(packs/DOMAIN/pack\.json\)"):
            pack_folders([folder])


def test_a_manifest_with_learned_weights_is_not_overwritten_unawares(tmp_path: Path) -> None:
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
