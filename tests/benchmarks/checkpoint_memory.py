"""Memory that a checkpoint takes beyond the run's own: while it is saved, in place and in the background, and restored.

    python tests/benchmarks/checkpoint_memory.py [--layers 6]        # Linux

A decoder of 32 million weights (126 MB in float32) with AdamW's moments (253 MB), one process. The growth of the peak
resident set is read from ``VmHWM``, set back before each (``/proc/self/clear_refs``); while restoring, mapped pages of
the checkpoint's files count in it, which the system takes back when it needs them: so the growth of what is the
process's own (``RssAnon``) is shown beside it. Beside ours: `safetensors.torch.save`, which makes a file of bytes in
memory, for the larger of the two files. The last line has ``key=value`` figures, in MB.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import safetensors.torch
import torch

from trainer.config import OptimizerConfig
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig
from trainer.optimizer.optimizers import Optimizers, build_optimizer
from trainer.recovery.background import BackgroundSaver
from trainer.recovery.checkpoint import (
    CheckpointFolder,
    load_model_tensors,
    load_optimizer_tensors,
    model_tensors,
    optimizer_tensors,
)


def held(name: str) -> float:
    """Returns a line of /proc/self/status in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def growth(action: Callable[[], object]) -> tuple[float, float]:
    """Returns by how much the peak of the resident set, and what is the process's own afterwards, exceed the start."""
    Path("/proc/self/clear_refs").write_text("5")
    resident, own = held("VmRSS"), held("RssAnon")
    action()
    return max(0.0, held("VmHWM") - resident), max(0.0, held("RssAnon") - own)


def trained(num_layers: int) -> tuple[Decoder, Optimizers]:
    """A model after one step, so that it has moments."""
    torch.manual_seed(0)
    shape = ModelConfig(
        vocab_size=8192, dim=640, num_layers=num_layers, num_heads=10, num_kv_heads=5, hidden_dim=1792, max_positions=64
    )
    model = Decoder(shape)
    model.initialize(0)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.01))
    model.logits(torch.randint(8192, (1, 8))).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=6)
    model, optimizer = trained(parser.parse_args().layers)
    tensors = {"model": model_tensors(model), "optimizer": optimizer_tensors(optimizer)}
    largest = max(v.numel() * v.element_size() for named in tensors.values() for v in named.values()) / 2**20
    figures = {
        name: sum(v.numel() * v.element_size() for v in named.values()) / 2**20 for name, named in tensors.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = CheckpointFolder(Path(folder), {}, keep=2)

        def save(now: bool) -> None:
            with BackgroundSaver(checkpoints, save_now=now) as saver:
                saver.save(1, tensors, {})
                saver.close()

        def restore() -> None:
            found = checkpoints.load()
            assert found is not None
            load_model_tensors(model, found.tensors["model"])
            load_optimizer_tensors(optimizer, found.tensors["optimizer"])

        figures["save"] = growth(lambda: save(True))[0]
        figures["background"] = growth(lambda: save(False))[0]
        figures["whole_file"] = growth(lambda: safetensors.torch.save(tensors["optimizer"]))[0]
        with torch.no_grad():
            figures["restore"], figures["restore_own"] = growth(restore)
    print(f"weights {figures['model']:.0f} MB, moments {figures['optimizer']:.0f} MB, largest tensor {largest:.0f} MB")
    print(f"  saving in place         {figures['save']:6.0f} MB more than the run")
    print(f"  saving in background    {figures['background']:6.0f} MB")
    print(f"  safetensors.torch.save  {figures['whole_file']:6.0f} MB, for the moments")
    print(f"  restoring               {figures['restore']:6.0f} MB, of which {figures['restore_own']:.0f} its own")
    print(" ".join(f"{name}={value:.0f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
