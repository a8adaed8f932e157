"""The way back: learned weights as a new mixture manifest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataeng.formats.mixture import LearnedWeights, MixtureManifest, Policy, relative_to_manifest, save_mixture
from dataeng.mixture.schedule import mean_shares, rescaled_stages, stages_of
from trainer.config import TrainConfig
from trainer.watching.metrics import DomainSummary

#: A softmax with a small r can round a weight to 0, which a manifest does not take.
SMALLEST_WEIGHT = 1e-6


def learned_manifest(
    config: TrainConfig, manifest: MixtureManifest, weights: npt.NDArray[np.float64], summaries: list[DomainSummary]
) -> MixtureManifest:
    """Returns the manifest to be written at ``config.save_mixture``.

    The learned weights become the domains' weights (without reweighting, the weights and their policy stay), the run is
    added to the history, and paths are rewritten relative to the new place. The stages of a schedule are scaled by what
    was learned, and the weights are their means.
    """
    target = config.save_mixture
    floored = np.maximum(weights, SMALLEST_WEIGHT)
    floored = floored / floored.sum()
    learned = {name: float(weight) for name, weight in zip(manifest.domains, floored, strict=True)}
    learns = config.reweighting.method != "none"
    run = relative_to_manifest(config.out, target)
    entry = LearnedWeights(
        run=run,
        step=config.num_steps,
        weights=learned,
        losses={s.domain: s.last_loss for s in summaries if s.last_loss is not None},
    )
    note = f"mean weights of {config.reweighting.method} (r = {config.reweighting.r:g}) over {config.num_steps} steps"
    folder = config.mixture.parent
    schedule = manifest.schedule
    if learns and schedule:
        stages = rescaled_stages(stages_of(manifest), floored)
        schedule = [
            stage.model_copy(update={"weights": dict(zip(manifest.domains, shares.tolist(), strict=True))})
            for stage, (_, shares) in zip(schedule, stages, strict=True)
        ]
        learned = dict(zip(manifest.domains, mean_shares(stages).tolist(), strict=True))
    return manifest.model_copy(
        update={
            "run": None if manifest.run is None else relative_to_manifest(folder / manifest.run, target),
            "domains": {
                name: domain.model_copy(
                    update={
                        "packs": [relative_to_manifest(folder / pack, target) for pack in domain.packs],
                        "weight": learned[name] if learns else domain.weight,
                    }
                )
                for name, domain in manifest.domains.items()
            },
            "schedule": schedule,
            "policy": Policy(name="learned", note=note) if learns else manifest.policy,
            "history": [*manifest.history, entry],
        }
    )


def save_learned_mixture(
    config: TrainConfig, manifest: MixtureManifest, weights: npt.NDArray[np.float64], summaries: list[DomainSummary]
) -> None:
    """Writes `learned_manifest`, atomically."""
    save_mixture(config.save_mixture, learned_manifest(config, manifest, weights, summaries))
