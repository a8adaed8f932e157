"""What the losses of every domain and the controller cost of a training step.

    python tests/benchmarks/channels.py [--data DIR] [--preset small] [--domains 4 16 64 256] [--device cuda]

*The step as a whole*: a plain loop over the same model, loader, optimizer and chunked loss, whose loss is one mean and
which reports one number, beside the run's own step with K domains (sums, controller, multipliers, record of every
domain). One step of each in turn, medians. The plain loop knows what every token weighs before its forward pass, as a
run with ``--reweighting none`` does; the controller's default weights a step by its own losses, known only after it.

*The parts alone*: the time in those functions that exist for domains alone, called by the very same steps, over the
step's. This is what is to stay below 1 %: the difference above is noisier than that. On a GPU, what was given to it is
waited for before and after each part, so that a part's time is its own.

On a CPU, processor time of one thread; on a GPU, by the clock. The last line has ``key=value`` figures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor

import trainer.run
import trainer.steering.feedback
import trainer.step
from tests.benchmarks.training_run import Clock, Measured, OurStep, take_turns, write_mixture
from trainer.device import autocast
from trainer.model.cross_entropy import IGNORED, default_chunk_tokens, weighted_token_losses

#: What would not be there without domains: owner, name, and what to call it.
PARTS: list[tuple[Any, str, str]] = [
    (trainer.step, "row_sums", "sums of rows"),
    (trainer.step, "sums_of", "sums of domains"),
    (trainer.steering.feedback.Feedback, "begin", "planned shares"),
    (trainer.steering.feedback.Feedback, "take", "controller"),
    (trainer.steering.feedback.Feedback, "multipliers", "multipliers"),
    (trainer.steering.feedback.Feedback, "_redraw", "new shares of rows"),
    (trainer.run.Run, "_record", "record"),
]


class PlainStep(OurStep):
    """The loop without domains: the run's own model, loader and optimizer, one mean loss."""

    def step(self) -> float:
        self.num_steps += 1
        run, config, device = self.run, self.config, self.run.ranks.device
        batch = run.loader.next(self.num_steps)
        run.optimizer.zero_grad()
        tokens_bt = batch.tokens_bt.to(device, non_blocking=True).long()
        is_label_n = batch.labels_bt.to(device, non_blocking=True).flatten()
        labels_n = torch.where(is_label_n == 1, tokens_bt[:, 1:].flatten(), IGNORED)
        documents = batch.documents.to(device)
        chunk = default_chunk_tokens(config.model.vocab_size, device)

        def mean(hidden_btd: Tensor, weight_vd: Tensor) -> Tensor:
            weights_n = is_label_n / is_label_n.sum()
            return weighted_token_losses(
                hidden_btd.flatten(0, 1), weight_vd, labels_n, weights_n, chunk, compiled=config.compile
            )[0]

        with autocast(device):
            loss = run.model(tokens_bt[:, :-1], documents, mean)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.optimizer.max_gradient_norm)
        run.optimizer.step()
        return float(loss.detach())


class Stopwatch:
    """Adds up the time in `PARTS`, for the side that steps at the moment."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}

    def install(self) -> None:
        for owner, name, title in PARTS:
            setattr(owner, name, self._timed(getattr(owner, name), title))

    def _timed(self, function: Callable[..., Any], title: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start = self.clock.now()
            try:
                return function(*arguments, **keywords)
            finally:
                self.seconds[title] = self.seconds.get(title, 0.0) + self.clock.now() - start

        return call


class Watched(Measured):
    """A side whose parts are timed, too; two rounds warm up."""

    def __init__(self, side: OurStep, stopwatch: Stopwatch) -> None:
        super().__init__(self)
        self.inner, self.stopwatch = side, stopwatch
        self.parts: list[dict[str, float]] = []

    def step(self) -> float:
        self.stopwatch.seconds = {}
        loss = self.inner.step()
        self.parts.append(self.stopwatch.seconds)
        return loss

    def release(self) -> None:
        self.inner.release()

    def median(self, title: str) -> float:
        return statistics.median(parts.get(title, 0.0) for parts in self.parts[2:])


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    device = torch.device(arguments.device)
    options = {
        "preset": arguments.preset, "batch_size": arguments.batch_size, "sequence_length": arguments.sequence_length,
        "device": arguments.device, "compile": arguments.compile, "threads": 1 if device.type == "cpu" else None,
        "steps": 100 + 4 * arguments.rounds,
    }  # fmt: skip
    clock = Clock(device)
    stopwatch = Stopwatch(clock)
    stopwatch.install()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides: dict[str, Watched] = {}
        for count in arguments.domains:
            mixture = write_mixture(folder / str(count), count, arguments.tokens, arguments.vocabulary, arguments.data)
            if not sides:
                sides["plain"] = Watched(PlainStep(mixture, **options, out=folder / "plain"), stopwatch)
                known = {**options, "reweighting": "none", "out": folder / "none"}
                sides[f"{count} domains, no reweighting"] = Watched(OurStep(mixture, **known), stopwatch)
            sides[f"{count} domains"] = Watched(OurStep(mixture, **options, out=folder / f"ours{count}"), stopwatch)
        take_turns(list(sides.values()), arguments.rounds, clock)
    return show(sides)


def show(sides: dict[str, Watched]) -> dict[str, float]:
    plain = statistics.median(sides["plain"].seconds)
    print(f"{'':34}{'ms a step':>12}{'beyond plain %':>16}{'parts ms':>12}{'parts %':>10}")
    figures = {"plain_ms": plain * 1000}
    for name, side in sides.items():
        step, parts = statistics.median(side.seconds), sum(side.median(title) for *_, title in PARTS)
        print(
            f"{name:34}{step * 1000:>12.1f}{100 * (step / plain - 1):>16.2f}{parts * 1000:>12.3f}"
            f"{100 * parts / step:>10.3f}"
        )
        key = name.replace(", ", "_").replace(" ", "_")
        figures |= {f"{key}_step_percent": 100 * (step / plain - 1), f"{key}_parts_percent": 100 * parts / step}
    names = list(sides)[1:]
    print("\n" + f"{'parts, ms':22}" + "".join(f"{name:>29}" for name in names))
    for *_, title in PARTS:
        print(f"{title:22}" + "".join(f"{sides[name].median(title) * 1000:>29.3f}" for name in names))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="documents are as long as those of DIR/domains/*.jsonl.gz")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--domains", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, help="rows; default: the preset's")
    parser.add_argument("--sequence-length", type=int)
    parser.add_argument("--vocabulary", type=int, default=16_384)
    parser.add_argument("--tokens", type=int, default=8_000_000, help="in the packs")
    arguments = parser.parse_args()

    from dataeng.packing import prepare

    prepare()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    figures = measure(arguments)
    where = torch.cuda.get_device_name() if arguments.device != "cpu" else "one thread, processor time"
    print(f"\n{where}; PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print(" ".join(f"{name}={value:.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
