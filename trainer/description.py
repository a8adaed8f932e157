"""What a run says of itself: at its start to a person, and in ``training.json`` to whoever reads it later."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from dataeng.formats.atomic import write_json
from trainer.data.presence import presence_warning, repetition_warning
from trainer.identity import as_json
from trainer.optimizer.schedule import total_rows
from trainer.parallel.ranks import environment
from trainer.watching.progress import Watcher

if TYPE_CHECKING:
    from trainer.run import Run


def announce(run: Run, watcher: Watcher) -> None:
    """Tells what is about to be run, and what a person may want to change before it is."""
    config = run.config
    rows = total_rows(config.num_steps, config.batch_size, config.schedule)
    model = config.preset if config.init_from is None else config.init_from
    watcher.note(
        f"{model}: {run.model.num_parameters():,} parameters on {_hardware(run)}; "
        f"{config.num_steps:,} steps of {config.batch_size:,} rows of {config.sequence_length:,} tokens, "
        f"{rows * config.sequence_length:,} in all, from {len(run.rows.names)} domains; run: {config.out}"
    )
    for warning in (
        presence_warning(run.presences, config.batch_size, config.reweighting),
        repetition_warning(
            run.rows.names,
            run.loader.sampler.stages,
            run.rows.num_rows,
            rows,
        ),
        None if run.validation is None else run.validation.warning,
    ):
        if warning is not None:
            watcher.note(warning)


def describe(run: Run, status: str) -> None:
    """Writes ``training.json``; the first rank does."""
    if not run.ranks.is_first:
        return
    write_json(
        run.config.out / "training.json",
        {
            "format_version": 1,
            "status": status,
            "step": run.step,
            "num_steps": run.config.num_steps,
            "num_parameters": run.model.num_parameters(),
            "tokens_per_step": run.config.tokens_per_step,
            "flops_per_token": run.meter.flops_per_position,
            "peak_flops": run.meter.peak_flops,
            "hardware": _hardware(run),
            "domains": run.rows.names,
            "reweighted": run.feedback.controller.reweighted.tolist(),
            "bytes_per_token": run.feedback.controller.bytes_per_token.tolist(),
            "presence": [asdict(presence) for presence in run.presences],
            "environment": environment(run.config, run.ranks),
            "config": as_json(run.config),
        },
    )


def _hardware(run: Run) -> str:
    device = run.ranks.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    return name if run.ranks.count == 1 else f"{run.ranks.count} ranks, weights by {run.config.parallel} ({name})"
