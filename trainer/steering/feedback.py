"""How losses move the mixture while a run is going: sums of a step in, loss multipliers and shares of rows out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dataeng.formats.mixture import MixtureManifest
from dataeng.mixture.reweighting import Controller
from trainer.config import TrainConfig
from trainer.data.loader import Loader
from trainer.data.rows import MixtureRows
from trainer.data.sampler import SampledStage
from trainer.loss import loss_multipliers
from trainer.optimizer.schedule import is_decaying
from trainer.step import Sums

Floats = npt.NDArray[np.float64]


class Feedback:
    """The controller of a run, with the shares it starts from and the loader that may follow it.

    On several ranks each has its own; all see the same sums and come to the same weights.
    """

    def __init__(
        self,
        config: TrainConfig,
        manifest: MixtureManifest,
        rows: MixtureRows,
        stages: Sequence[SampledStage],
        loader: Loader,
    ) -> None:
        self.config, self.rows, self.loader = config, rows, loader
        self.stage_shares = [rows.label_shares(stage.shares) for stage in stages]
        self.controller = Controller(
            config.reweighting,
            self.stage_shares[0],
            names=rows.names,
            reweighted=np.array([domain.reweighted for domain in manifest.domains.values()]),
            bytes_per_token=rows.bytes_per_token(),
        )
        self.drawn_shares = self.stage_shares[0]

    @property
    def weights(self) -> Floats:
        """The domains' weights that hold now, float64 [K]."""
        return self.controller.weights

    @property
    def planned_shares(self) -> Floats:
        """The shares of labels that the present stage plans, float64 [K]: the controller's prior."""
        return self.controller.shares

    def decaying(self, step: int) -> bool:
        """Whether the learning rate decays in this step, where weights stay unless told otherwise."""
        return is_decaying(step, self.config.num_steps, self.config.schedule)

    def begin(self) -> None:
        """Sets the shares of labels of the step that is drawn next, as its stage plans and as it is drawn."""
        sampler = self.loader.sampler
        self.controller.shares = self.stage_shares[sampler.stage]
        self._redraw()
        self.drawn_shares = self.rows.label_shares(sampler.shares)

    def is_moved_by(self, step: int) -> bool:
        """Whether the multipliers of a step wait for its own losses."""
        if self.config.reweighting.feedback == "sampling":
            return False
        return self.controller.is_due(frozen=self._is_frozen(step))

    def take(self, step: int, sums: Sums) -> None:
        """Gives the controller a step's losses, which must be finite."""
        self.controller.update(sums.losses, sums.tokens, sums.squares, frozen=self._is_frozen(step))

    def _is_frozen(self, step: int) -> bool:
        return self.decaying(step) and self.config.reweighting.freeze_in_decay

    def multipliers(self, token_counts: Floats) -> Floats:
        """Returns what the domains' losses are multiplied by, so that the objective is Σ weight · loss."""
        reweighting, loss = self.config.reweighting, self.config.loss
        if reweighting.feedback == "sampling":
            return np.ones(len(token_counts))
        cap = loss.max_multiplier if reweighting.method != "none" else math.inf
        return loss_multipliers(self.weights, self.drawn_shares, token_counts, loss.normalization, cap)

    def _redraw(self) -> None:
        """Lets the shares of rows follow the weights, which are those of the stage, where the manifest says so."""
        if self.config.reweighting.feedback == "loss" or self.config.reweighting.method == "none":
            return
        shares = self.rows.row_shares_for_labels(self.weights)
        if not np.allclose(shares, self.loader.sampler.shares, rtol=1e-6, atol=1e-9):
            self.loader.set_shares(shares.tolist())

    def state(self) -> dict[str, Any]:
        """Returns the controller's state, as JSON values."""
        return self.controller.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores `state`."""
        self.controller.load_state(state)
