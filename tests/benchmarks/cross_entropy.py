"""Cross-entropy in chunks beside PyTorch's own over all logits: CPU time and memory, forward and backward.

    python tests/benchmarks/cross_entropy.py [--tokens 2048] [--dim 256] [--vocabulary 16384] [--chunk 256]

The plain computation is ``F.cross_entropy(hidden @ weight.T)``; ``token_losses_kept`` is ``token_losses`` that may keep
all logits for the backward pass. CPU time of this process, so that a busy machine changes little; the best of three.
Memory is the growth of the process's peak, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.nn.functional as F

from trainer.model.cross_entropy import token_losses, weighted_token_losses


def measure(name: str, sizes: dict[str, int], sender: Connection) -> None:
    """Sends seconds per step and bytes of peak growth."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(sizes["tokens"], sizes["dim"], generator=generator, requires_grad=True)
    weight = torch.randn(sizes["vocabulary"], sizes["dim"], generator=generator).mul_(0.05).requires_grad_()
    labels = torch.randint(sizes["vocabulary"], (sizes["tokens"],), generator=generator)
    weights = torch.rand(sizes["tokens"], generator=generator)
    before, best = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, float("inf")
    for _ in range(3):
        hidden.grad = weight.grad = None
        start = time.process_time()
        if name == "plain":
            loss = (F.cross_entropy(hidden @ weight.T, labels, reduction="none") * weights).sum()
        elif name.startswith("token_losses"):
            kept_bytes = 1 << 40 if name.endswith("kept") else 0
            losses = token_losses(hidden, weight, labels, sizes["chunk"], kept_bytes=kept_bytes)
            loss = (losses * weights).sum()
        else:
            loss, _ = weighted_token_losses(hidden, weight, labels, weights, sizes["chunk"])
        loss.backward()
        best = min(best, time.process_time() - start)
    sender.send((best, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("tokens", 2048), ("dim", 256), ("vocabulary", 16_384), ("chunk", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = vars(parser.parse_args())
    print(", ".join(f"{name} {value:,}" for name, value in sizes.items()))
    figures = {}
    for name in ("plain", "token_losses", "token_losses_kept", "weighted_token_losses"):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(name, sizes, sender))
        process.start()
        seconds, grown = receiver.recv()
        process.join()
        figures[name] = (seconds, grown)
        print(f"{name:24}{seconds:8.3f} s{grown / 1e6:9.0f} MB")
    print(" ".join(f"{name}_s={seconds:.3f} {name}_mb={grown / 1e6:.0f}" for name, (seconds, grown) in figures.items()))


if __name__ == "__main__":
    main()
