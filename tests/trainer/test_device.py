"""Choosing a device, and leaving PyTorch's settings as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dataeng.errors import ConfigError, DataengError
from trainer.config import TrainConfig
from trainer.device import autocast, choose_device, full_memory_explained, reproducible, to_device

MakeConfig = Callable[..., TrainConfig]


def test_the_gpu_if_there_is_one() -> None:
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "meta", "cuda:99", "cuda:x"])
def test_what_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {name}"):
        choose_device(name)


def test_a_gpu_asked_for_by_number_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device("cuda").index is None
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert current == [torch.device("cuda:1")]


def test_reproducible_on_the_cpu_and_restored_after_an_error(make_config: MakeConfig) -> None:
    before = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())
    with pytest.raises(ZeroDivisionError), reproducible(make_config(threads=1), torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before


def test_a_full_gpu_is_explained(make_config: MakeConfig) -> None:
    said = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 139.72 GiB of which 11.62 MiB is free."
    with pytest.raises(DataengError) as raised, full_memory_explained(make_config(accumulate=2)):
        raise torch.OutOfMemoryError(f"{said} Including non-PyTorch memory, this process has 139 GiB in use.")
    assert str(raised.value) == (
        f"{said} A batch of 4 rows of 64 tokens is computed in 2 parts: --accumulate 4 halves them, "
        "--recompute-every 1 keeps less of a part, --parallel zero3 cuts weights over several GPUs."
    )


def test_cpus_compute_in_float32() -> None:
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpus_multiply_in_bfloat16() -> None:
    device = choose_device("cuda")
    with autocast(device):
        assert (to_device(torch.ones(2, 2), device) @ torch.ones(2, 2, device=device)).dtype == torch.bfloat16
