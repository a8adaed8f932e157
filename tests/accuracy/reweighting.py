"""Does reweighting help? Equal tokens, equal seeds, every method; held-out loss of every domain.

    python tests/accuracy/reweighting.py [--data DIR] [--out DIR] [--seeds N] [--steps N] [--methods A,B]

Packs are built by `tests.accuracy.reweighting_packs` (DIR is a folder in the layout of the test data, default:
environment variable DATAENG_TEST_DATA; without it, the sample only). Every method trains the same model from the same
weights for the same number of tokens, and is scored on the same held-out rows. One row for each method, seed and domain
goes into ``results.csv`` in ``--out`` as soon as it is known: the same command goes on where it was stopped. The table
says how methods compare with their own baseline at equal seeds, so that what a seed does to all of them cancels.

Methods that need reference losses (doremi, sheared) get the baseline's training losses of the same seed, over its last
fifth of steps; that run is part of their cost. ``…-static`` trains once more, from the start, on the mean weights that
the method ended with, as shares: for DoReMi, this is the method as published.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from dataeng.formats.atomic import write_json
from dataeng.formats.mixture import MixtureManifest, Policy, load_mixture, save_mixture
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.build import build_mixture
from tests.accuracy import reweighting_packs as packs
from tests.accuracy.reweighting_table import print_tables
from trainer.config import TrainConfig, derive_config
from trainer.evaluation.held_out import held_out_rows, load_model, score
from trainer.loop import train
from trainer.options import Options
from trainer.watching.progress import SilentWatcher

POLICIES = {
    "uniform": Policy(name="temperature", temperature=float("inf")),
    "natural": Policy(name="natural"),
    "temperature": Policy(name="temperature", temperature=2.0),
}


@dataclass(frozen=True)
class Variant:
    """One line of the table: the shares that it starts from, what moves them, what it needs beforehand."""

    name: str
    base: str
    constants: dict[str, Any] = field(default_factory=lambda: {"method": "none"})
    static_of: str | None = None

    @property
    def needs_reference(self) -> bool:
        return self.constants["method"] in ("doremi", "sheared")

    @property
    def num_runs(self) -> int:
        """Runs of equal length that it takes, those before it included."""
        return 1 + (0 if self.static_of is None else VARIANTS[self.static_of].num_runs) + self.needs_reference


def _controllers() -> dict[str, dict[str, Any]]:
    """Returns every method's constants; ``feedback`` is what its paper does."""
    sow = ("sow-identity", "sow-linupper", "sow-quadratic", "sow-extremes")
    return {
        **{method: {"method": method, "feedback": "loss"} for method in sow},
        "doremi": {"method": "doremi", "feedback": "loss"},
        "sheared": {"method": "sheared", "feedback": "sampling"},
        "odm": {"method": "odm", "feedback": "sampling"},
        "ado": {"method": "ado", "feedback": "sampling"},
    }


#: Intervals that papers give in steps of much longer runs: how many of them a run has here.
TIMES_A_RUN = {"sheared": {"interval": 15}, "ado": {"refit_steps": 10}}


def _variants() -> dict[str, Variant]:
    found = [Variant(name, name) for name in POLICIES]
    found += [Variant(name, "uniform", constants) for name, constants in _controllers().items()]
    found += [
        Variant(f"{name}-natural", "natural", {**_controllers()[name], "prior": "shares"})
        for name in ("sow-identity", "sow-linupper", "sheared", "ado")
    ]
    found += [Variant(f"{name}-static", "uniform", static_of=name) for name in ("sow-identity", "doremi")]
    return {variant.name: variant for variant in found}


VARIANTS = _variants()
#: What is run unless told otherwise, and in this order.
MAIN = [*POLICIES, *_controllers()]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same for all runs; ``results.csv`` is of one of these."""

    steps: int
    batch_size: int = 8
    sequence_length: int = 64
    learning_rate: float = 2e-3
    dim: int = 64
    num_layers: int = 2
    vocab_size: int = 2048
    max_epochs: float = 4.0
    ema: float = 0.9
    held_out_tokens: int = 8192

    def reweighting(self, constants: dict[str, Any], reference: dict[str, float] | None) -> Reweighting:
        """Returns a method's section of the manifest; what depends on the length of the run is worked out here."""
        known = {"ema": self.ema, "warmup_steps": self.steps // 10, **constants}
        for name, times in TIMES_A_RUN.get(constants["method"], {}).items():
            known[name] = max(1, self.steps // times)
        return Reweighting(reference=reference, **known)

    def with_model(self, config: TrainConfig) -> TrainConfig:
        """Returns the run with a model below all presets, for which so few tokens are less out of proportion."""
        shape = {"dim": self.dim, "num_layers": self.num_layers, "num_heads": 2, "num_kv_heads": 1}
        return replace(config, model=replace(config.model, **shape, hidden_dim=3 * self.dim))


class Experiment:
    """The packs, the settings, and what is known so far."""

    def __init__(self, folder: Path, corpus: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        trained, held_out = packs.pack_folders(corpus)
        self.manifests = {
            name: self._manifest(f"{name}.json", trained, policy, corpus) for name, policy in POLICIES.items()
        }
        natural = self._manifest("held_out.json", held_out, Policy(name="natural"), corpus)
        self.held_out = held_out_rows(natural, folder / "held_out.json", settings.sequence_length)
        self.results = folder / "results.csv"

    def _manifest(self, name: str, folders: list[Path], policy: Policy, corpus: Path) -> MixtureManifest:
        path = self.folder / name
        manifest = build_mixture(folders, path, policy=policy, max_epochs=self.settings.max_epochs, run=corpus)
        save_mixture(path, manifest)
        return manifest

    def done(self) -> set[tuple[str, int]]:
        """Returns the pairs of method and seed whose rows are written."""
        if not self.results.exists():
            return set()
        return set(pl.read_csv(self.results).select("method", "seed").unique().rows())

    def run(self, variant: Variant, seed: int) -> None:
        """Trains and scores one method at one seed, unless that was done; first whatever it needs."""
        if (variant.name, seed) in self.done():
            return
        for needed in (variant.static_of, variant.base if variant.needs_reference else None):
            if needed is not None:
                self.run(VARIANTS[needed], seed)
        out = self._out(variant.name, seed)
        manifest = self._mixture(variant, seed)
        mixture = self.folder / "manifests" / f"{variant.name}-{seed}.json"
        save_mixture(mixture, manifest)
        settings, started = self.settings, time.process_time()
        options = Options(
            mixture=mixture, out=out, steps=settings.steps, batch_size=settings.batch_size,
            sequence_length=settings.sequence_length, learning_rate=settings.learning_rate, seed=seed, device="cpu",
            threads=1, checkpoint_every=settings.steps, keep_checkpoints=1,
        )  # fmt: skip
        config = settings.with_model(derive_config(options, manifest))
        report = train(config, manifest, SilentWatcher())
        if report.step < report.num_steps:
            sys.exit(f"stopped at step {report.step} of {variant.name}, seed {seed}; the same command goes on.")
        seconds = time.process_time() - started
        model = load_model(out, manifest, mixture, torch.device("cpu"))
        scores = score(model, self.held_out, settings.held_out_tokens, torch.device("cpu"))
        shutil.rmtree(out / "checkpoints")
        learned = load_mixture(out / "mix.json").history[-1].weights
        trained = {summary.domain: summary for summary in report.domains}
        self._append(
            {
                "method": variant.name,
                "base": variant.base,
                "seed": seed,
                "domain": domain,
                "loss": f"{found.loss:.6f}",
                "standard_error": f"{found.standard_error:.6f}",
                "tokens": manifest.domains[domain].num_tokens,
                "weight": f"{learned[domain]:.6f}",
                "epochs": f"{trained[domain].epochs:.4f}",
                "runs": variant.num_runs,
                "seconds": f"{seconds:.1f}",
            }
            for found in scores
            for domain in [found.domain.removesuffix(packs.HELD_OUT)]
        )
        mean = sum(found.loss for found in scores) / len(scores)
        print(f"{variant.name}, seed {seed}: mean held-out loss {mean:.4f}, {seconds:.0f} s of CPU", flush=True)

    def _out(self, name: str, seed: int) -> Path:
        return self.folder / "runs" / name / str(seed)

    def _mixture(self, variant: Variant, seed: int) -> MixtureManifest:
        """Returns the manifest of one run; its packs are named relative to ``manifests/``."""
        reference = self._training_losses(variant.base, seed) if variant.needs_reference else None
        manifest, policy = self.manifests[variant.base], POLICIES[variant.base]
        weights: dict[str, float] | None = None
        if variant.static_of is not None:
            policy = Policy(name="given", note=f"mean weights of {variant.static_of}")
            learned = load_mixture(self._out(variant.static_of, seed) / "mix.json").domains
            weights = {name: domain.weight for name, domain in learned.items()}
        folders = [(self.folder / pack).resolve() for domain in manifest.domains.values() for pack in domain.packs]
        return build_mixture(
            folders,
            self.folder / "manifests" / "mix.json",
            policy=policy,
            weights=weights,
            max_epochs=self.settings.max_epochs,
            reweighting=self.settings.reweighting(variant.constants, reference),
        )

    def _training_losses(self, name: str, seed: int) -> dict[str, float]:
        """Returns a run's losses over the last fifth of its steps; of a domain not seen there, the last that was."""
        found = pl.read_parquet(self._out(name, seed) / "metrics" / "*.parquet").drop_nulls("loss")
        losses = {}
        for domain in self.manifests[name].domains:
            rows = found.filter(pl.col("domain") == domain).sort("step")
            late = rows.filter(pl.col("step") > 0.8 * self.settings.steps)
            rows = late if len(late) else rows.tail(1)
            losses[domain] = rows.select((pl.col("loss") * pl.col("tokens")).sum() / pl.col("tokens").sum()).item()
        return losses

    def _append(self, rows: Any) -> None:
        listed = list(rows)
        is_new = not self.results.exists()
        with self.results.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(listed[0]))
            if is_new:
                writer.writeheader()
            writer.writerows(listed)


def open_experiment(folder: Path, corpus: Path, settings: Settings) -> Experiment:
    """Returns the experiment on the packs of the run ``corpus``; exits when ``folder`` has results of other ones."""
    folder.mkdir(parents=True, exist_ok=True)
    domains = [path.name for path in packs.pack_folders(corpus)[0]]
    wanted = {**asdict(settings), "domains": domains}
    file = folder / "settings.json"
    if not file.exists():
        write_json(file, wanted)
    elif json.loads(file.read_text()) != wanted:
        sys.exit(f"{folder} has runs of other settings ({file}); give another --out.")
    return Experiment(folder, corpus, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATAENG_TEST_DATA"))
    parser.add_argument("--out", type=Path, default=Path("runs/reweighting"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="for several processes on one folder")
    parser.add_argument("--steps", type=int, default=600, help="of 512 tokens")
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    parser.add_argument("--methods", default=",".join(MAIN), help=f"any of {', '.join(VARIANTS)}; or all")
    parser.add_argument("--markdown", action="store_true", help="print the tables only, for a page of the docs")
    arguments = parser.parse_args()
    chosen = list(VARIANTS) if arguments.methods == "all" else arguments.methods.split(",")
    for name in chosen:
        if name not in VARIANTS:
            parser.error(f"--methods: there is no '{name}'; there are {', '.join(VARIANTS)}")
    settings = Settings(steps=arguments.steps, learning_rate=arguments.learning_rate)
    torch.set_num_threads(1)
    if not arguments.markdown:
        corpus = packs.build_packs(arguments.out, packs.sources(arguments.data), True, settings.vocab_size)
        experiment = open_experiment(arguments.out, corpus, settings)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for name in chosen:
                experiment.run(VARIANTS[name], seed)
    results = pl.read_csv(arguments.out / "results.csv")
    in_order = pl.col("method").cast(pl.Enum(list(VARIANTS)))
    print_tables(results.sort(in_order, "seed", maintain_order=True), arguments.markdown)


if __name__ == "__main__":
    main()
