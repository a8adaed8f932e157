"""Where a run computes, in which precision, and how reproducibly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import torch

from dataeng.errors import ConfigError, DataengError
from trainer.config import TrainConfig


def choose_device(name: str | None) -> torch.device:
    """Returns the device asked for; without a wish, the GPU if there is one. Raises `ConfigError`.

    A GPU that is asked for by its number becomes the current one: a library that forgets to say which one it means
    would otherwise open the first, too, and take some hundred MB of what others may need there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name} is unknown; use cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name} is not supported; use cpu, cuda or cuda:N.")
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise ConfigError(f"--device {name}: this machine has {torch.cuda.device_count()} usable GPUs.")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextlib.contextmanager
def reproducible(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """On the CPU: only deterministic kernels, so that a resumed run repeats an unbroken one bit for bit.

    On a GPU: what little is multiplied in float32 (autocast leaves hardly any) may use TensorFloat-32. Where layers are
    compiled, DDP does not cut them into pieces of its buckets' sizes: gradients are sent between layers as it is.
    """
    before, fill, threads, precision = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
    )
    graphs: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if config.compile:
        from torch._dynamo import config as settings

        graphs = settings.patch(optimize_ddp=False)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    else:
        torch.set_float32_matmul_precision("high")
    try:
        with graphs:
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


@contextlib.contextmanager
def full_memory_explained(config: TrainConfig) -> Iterator[None]:
    """Turns what PyTorch says of a GPU whose memory is full into an error that names what needs less of it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = str(error).partition(" Including")[0]  # what follows is about PyTorch's allocator
        raise DataengError(
            f"{said} A batch of {config.batch_size} rows of {config.sequence_length:,} tokens is computed in "
            f"{config.accumulate} part{'s' * (config.accumulate > 1)}: --accumulate {2 * config.accumulate} halves "
            "them, --recompute-every 1 keeps less of a part, --parallel zero3 cuts weights over several GPUs."
        ) from error


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor to the device; to a GPU without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class OnItsWay:
    """A tensor's values on their way to the CPU: the GPU goes on with what it was given meanwhile."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = tensor
        if tensor.is_cuda:
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> npt.NDArray[Any]:
        """Returns the values once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.numpy()


def autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 on GPUs; float32 on CPUs, of which few have fast bfloat16."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
