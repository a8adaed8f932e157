"""Training steps of ours and of a plain loop around Hugging Face's Llama, side by side: tokens a second, MFU, memory.

    python tests/benchmarks/training.py [--data DIR] [--preset 25m …] [--device cuda] [--compile] [--rounds 10]

Ours is the step of a run, whole: rows read by the loader, chunked loss, losses of every domain, the controller,
clipping, optimizer, record; with and without document masks. The peer is what one would write in an afternoon:
``LlamaForCausalLM`` of the same shape with SDPA, mean cross-entropy over all logits, clipping, fused AdamW, its rows
already on the device, no document masks, nothing recorded. Both start from the same weights, take the same rows (their
first losses are compared), in bfloat16 autocast on GPUs and with ``torch.compile`` where asked for.

One step of each in turn, medians. On a GPU by the clock, after everything is done; on a CPU in processor time of one
thread, so that other work on the machine changes little. Peak memory: on a GPU of PyTorch's allocator in a step; on a
CPU the growth of a process of its own that takes two steps. MFU is the part of the peak rate that is what the tokens
take by the formula in ``trainer.watching.flops`` (6 N + causal attention over whole rows); on a CPU the peak is what a
product of two matrices of 1,024 × 1,024 reaches, measured between the steps. The last line has ``key=value`` figures.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.training_run import Clock, Measured, OurStep, Side, take_turns, write_mixture
from trainer.device import autocast
from trainer.model.presets import ModelConfig
from trainer.watching.flops import flops_per_position
from trainer.watching.flops import peak_flops as known_peak

SIDES = {"ours": "ours", "no_masks": "ours, no document masks", "peer": "Hugging Face Llama, plain loop"}


def huggingface_model(config: ModelConfig) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    theta = {"rope_theta": config.rope_theta, "rope_type": "default"}
    shape = LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.dim, intermediate_size=config.hidden_dim,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads, head_dim=config.head_dim,
        num_key_value_heads=config.num_kv_heads, max_position_embeddings=config.max_positions, use_cache=False,
        rms_norm_eps=config.norm_epsilon, tie_word_embeddings=config.tied_embeddings, rope_parameters=theta,
    )  # fmt: skip
    return LlamaForCausalLM._from_config(shape, attn_implementation="sdpa")


class Peer:
    """The plain loop."""

    def __init__(self, ours: OurStep, compiled: bool, num_batches: int = 4) -> None:
        config, run = ours.config, ours.run
        self.device, self.learning_rate = run.ranks.device, config.optimizer.learning_rate
        self.model = huggingface_model(config.model)
        weights = {f"model.{name}": value for name, value in run.model.state_dict().items()}
        for name in [name for name in weights if name.startswith("model.lm_head.")]:
            weights[name.removeprefix("model.")] = weights.pop(name)
        missing, surplus = self.model.load_state_dict(weights, strict=False)
        assert not surplus and set(missing) <= {"lm_head.weight"}, (missing, surplus)
        self.model.to(self.device)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.95), fused=True)
        sampler = run.loader.sampler.clone()
        self.batches = [
            torch.from_numpy(run.rows.batch(*sampler.take(config.batch_size)).tokens).to(self.device).long()
            for _ in range(num_batches)
        ]
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.num_steps = 0

    def _loss(self, tokens: Tensor) -> Tensor:
        logits = self.model(tokens[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    def step(self) -> float:
        tokens = self.batches[self.num_steps % len(self.batches)]
        self.num_steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device):
            loss = self.loss(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def release(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)


def build(name: str, mixture: Path, options: dict[str, Any]) -> Side:
    torch.manual_seed(0)
    ours = OurStep(mixture, **options, document_mask=name == "ours", out=mixture.parent / name)
    return Peer(ours, options["compile"]) if name == "peer" else ours


def child(name: str, mixture: Path, options: dict[str, Any], sender: Connection) -> None:
    """Sends the bytes by which two steps make a process larger."""
    torch.set_num_threads(1)
    import transformers.models.llama.modeling_llama  # noqa: F401 - what a side imports is not what it needs

    before = memory("VmRSS")
    side = build(name, mixture, options)
    for _ in range(2):
        side.step()
    sender.send(memory("VmHWM") - before)


def memory(field: str) -> int:
    """Returns bytes of this process; what getrusage tells includes the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def memory_on_cpu(name: str, mixture: Path, options: dict[str, Any]) -> int:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=child, args=(name, mixture, options, sender))
    process.start()
    grown: int = receiver.recv()
    process.join()
    return grown


class Product:
    """A product of matrices, timed as if it were a step: what the machine can do."""

    def __init__(self) -> None:
        self.one, self.other = torch.randn(1024, 1024), torch.randn(1024, 1024)

    def step(self) -> float:
        self.one @ self.other
        return 0.0

    def release(self) -> None:
        pass

    flops = 2 * 1024**3


def peak_flops(device: torch.device, given: float | None) -> float | None:
    """The rate that 100 % stand for; None: to be measured."""
    if given is not None or device.type == "cpu":
        return given
    known = known_peak(device)
    if known is None:
        raise SystemExit(f"the peak of {torch.cuda.get_device_name(device)} is not known; give it with --peak-flops")
    return known


def forget(device: torch.device) -> None:
    """Lets go what the preset before has left.

    All presets' layers are one piece of code: of so many shapes PyTorch would soon make one graph for all, slower, and
    beyond its limit of graphs no more at all.
    """
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measure(preset: str, arguments: argparse.Namespace) -> dict[str, float]:
    device = torch.device(arguments.device)
    forget(device)
    with tempfile.TemporaryDirectory() as folder:
        mixture = write_mixture(Path(folder), 4, arguments.tokens, arguments.vocabulary, arguments.data)
        options = {
            "preset": preset, "batch_size": arguments.batch_size, "sequence_length": arguments.sequence_length,
            "device": arguments.device, "compile": arguments.compile, "steps": 100 + 4 * arguments.rounds,
            "threads": 1 if device.type == "cpu" else None,
        }  # fmt: skip
        sides = {}
        for name in SIDES:
            before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
            sides[name] = Measured(build(name, mixture, options))
            sides[name].resident = torch.cuda.memory_allocated() - before if device.type == "cuda" else 0
        peak, product = peak_flops(device, arguments.peak_flops), Measured(Product())
        measured = [*sides.values(), *([product] if peak is None else [])]
        take_turns(measured, arguments.rounds, Clock(device))
        if device.type == "cpu":
            for name, side in sides.items():
                side.peak = memory_on_cpu(name, mixture, options)
        ours = sides["ours"].side
        assert isinstance(ours, OurStep)
        return show(preset, ours, sides, Product.flops / min(product.seconds) if peak is None else peak)


def show(preset: str, ours: OurStep, sides: dict[str, Measured], peak: float) -> dict[str, float]:
    config = ours.config
    tokens = config.tokens_per_step
    flops = flops_per_position(ours.run.model, config.model, config.sequence_length)
    print(
        f"\n{preset}: {ours.run.model.num_parameters() / 1e6:.1f} M weights, {config.batch_size} rows of "
        f"{config.sequence_length} tokens, vocabulary {config.model.vocab_size:,}, {flops / 1e6:,.0f} MFLOP a token; "
        f"100 % are {peak / 1e12:,.3f} TFLOP/s"
    )
    print(f"{'':34}{'tokens/s':>12}{'ms a step':>12}{'MFU %':>8}{'peak MB':>10}{'first loss':>12}")
    found = {}
    for name, title in SIDES.items():
        side = sides[name]
        seconds = statistics.median(side.seconds)
        rate = tokens / seconds
        print(
            f"{title:34}{rate:>12,.0f}{seconds * 1000:>12.1f}{100 * rate * flops / peak:>8.1f}{side.peak / 1e6:>10,.0f}"
            f"{side.first_loss:>12.4f}"
        )
        found |= {
            f"{preset}_{name}_tokens_per_second": rate,
            f"{preset}_{name}_mfu": rate * flops / peak,
            f"{preset}_{name}_peak_mb": side.peak / 1e6,
        }
    if abs(sides["no_masks"].first_loss - sides["peer"].first_loss) > 0.01:
        raise SystemExit("the first losses differ: the two sides do not compute the same")
    ratio = found[f"{preset}_ours_tokens_per_second"] / found[f"{preset}_peer_tokens_per_second"]
    print(f"ours is {ratio:.2f} times as fast as the plain loop")
    return {**found, f"{preset}_ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="documents are as long as those of DIR/domains/*.jsonl.gz")
    parser.add_argument("--preset", nargs="+", default=["small"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, help="rows; default: the preset's")
    parser.add_argument("--sequence-length", type=int)
    parser.add_argument("--vocabulary", type=int, default=50_304)
    parser.add_argument("--tokens", type=int, default=8_000_000, help="in the packs")
    parser.add_argument("--peak-flops", type=float, help="FLOP/s that MFU is a share of")
    arguments = parser.parse_args()

    from dataeng.packing import prepare

    prepare()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.set_float32_matmul_precision("high")
    figures: dict[str, float] = {}
    for preset in arguments.preset:
        figures |= measure(preset, arguments)
    where = torch.cuda.get_device_name() if arguments.device != "cpu" else "one thread, processor time"
    print(f"\n{where}; PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print(" ".join(f"{name}={value:.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
