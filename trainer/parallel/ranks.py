"""The processes of a run: one alone, or several that ``torchrun -m trainer …`` starts, each with its rank.

All of them plan the same rows, sum the same losses and take the same decisions; the first alone speaks, writes and
holds the run's folder, which all must see. What they tell one another besides gradients is small and goes over the CPU.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore

from dataeng.errors import ConfigError, DataengError
from trainer.config import TrainConfig
from trainer.device import choose_device
from trainer.parallel.failure import EndedByAnother, LostRank, Word, let_speak, meeting_point

Floats = npt.NDArray[np.float64]

#: A rank that waits for longer than this has lost another one; saving a checkpoint takes less.
TIMEOUT = timedelta(minutes=30)
#: Seconds at most between two looks of a rank that waits for others' long work; the first follow one another faster.
LOOK_SECONDS = 1.0


class Ranks:
    """This process among ``count`` of them; ``mesh`` and ``word`` are None for one alone."""

    def __init__(
        self,
        device: torch.device,
        rank: int = 0,
        count: int = 1,
        mesh: DeviceMesh | None = None,
        word: Word | None = None,
    ) -> None:
        self.device, self.rank, self.count, self.mesh, self.word = device, rank, count, mesh, word

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def sum(self, values: Floats) -> Floats:
        """Returns the sum over all ranks, element by element; every rank gets the same numbers."""
        if self.count == 1:
            return values
        total = torch.from_numpy(np.array(values, np.float64))
        with self.others_there():
            dist.all_reduce(total)
        return np.asarray(total.numpy())

    def gather(self, values: Floats) -> Floats:
        """Returns the values of all ranks, [count, …], where each has as many."""
        if self.count == 1:
            return values[None]
        found = [torch.empty(values.shape, dtype=torch.float64) for _ in range(self.count)]
        with self.others_there():
            dist.all_gather(found, torch.from_numpy(np.array(values, np.float64)))
        return np.stack([part.numpy() for part in found])

    def agree(self, values: Floats, what: str) -> None:
        """Raises `DataengError` on all ranks when they do not hold the same values."""
        found = self.gather(np.asarray(values, np.float64))
        if not (found == found[0]).all():
            raise DataengError(f"the ranks differ in {what}: {'; '.join(str(part) for part in found.tolist())}.")

    @contextlib.contextmanager
    def others_there(self) -> Iterator[None]:
        """Around all that ranks do together: what PyTorch raises when one is gone becomes an error with a cause.

        Raises `EndedByAnother` where a rank has left word of what happened, and else `LostRank`.
        """
        try:
            yield
        except RuntimeError as error:
            if not _is_lost(error):
                raise
            raise self._lost(error) from error

    def _lost(self, error: RuntimeError) -> DataengError:
        what = "another process of this run has ended without a word (killed, or its machine is gone)"
        if "timed out" in str(error).lower():
            what = f"another process of this run has not answered for {TIMEOUT.total_seconds() / 60:g} minutes"
        assert self.word is not None, "one process has no others"
        failure = self.word.leave(what, is_cause=False)
        return LostRank(what) if failure.rank == self.rank else EndedByAnother(failure)

    @contextlib.contextmanager
    def long_work(self, name: str) -> Iterator[Callable[[], None]]:
        """Around work of any length that every rank has a part in; all leave the block together.

        Gives what to call whenever a piece is done: others wait as long as any rank does so within `TIMEOUT`. A
        collective would give up after that time, however busy they are.

        Raises `EndedByAnother` where one of them fails, and `LostRank`.
        """
        if self.word is None:
            yield lambda: None
            return
        store, pieces, ready, all_ready = self.word.store, f"{name} pieces", f"{name} ready", f"{name} all ready"

        def piece_done() -> None:
            store.add(pieces, 1)

        with self.others_there():
            yield piece_done
            if store.add(ready, 1) == self.count:
                store.set(all_ready, "")
            pause, num_pieces, since = 0.01, -1, time.monotonic()
            while not store.check([all_ready]):  # `wait` would write a warning whenever its time is over
                if (failure := self.word.found()) is not None:
                    raise EndedByAnother(failure)
                found = store.add(pieces, 0)
                if found != num_pieces:
                    num_pieces, since = found, time.monotonic()
                elif time.monotonic() - since > TIMEOUT.total_seconds():
                    raise self._lost(RuntimeError("timed out"))
                time.sleep(pause)
                pause = min(2 * pause, LOOK_SECONDS)

    @contextlib.contextmanager
    def leaving_together(self) -> Iterator[None]:
        """Keeps every rank in the block until all have come to its end.

        A process that ends with an exit code, as one of a stopped run does, makes torchrun end the others: also the
        first, which may still be writing what the others have no part in.
        """
        yield
        self.wait_for_all()

    def wait_for_all(self) -> None:
        """Returns once every rank has come here."""
        if self.count > 1:
            self.sum(np.zeros(1))


@contextlib.contextmanager
def open_ranks(config: TrainConfig) -> Iterator[Ranks]:
    """Joins the processes that torchrun has started, with a mesh over all their devices; without torchrun, one alone.

    Raises `ConfigError` when the batch cannot be cut over so many ranks, or a device is missing.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        if config.replicas != 1:
            raise ConfigError(f"--replicas {config.replicas}: there is one process; torchrun starts several.")
        yield Ranks(choose_device(config.device))
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    device = _device_of(config.device, local_rank)
    _check_batches(config, count)
    ranks = _join(device, rank, count)
    try:
        with ranks.others_there():
            ranks.mesh = _mesh(config, device, count)
            yield ranks
    except BaseException as error:
        let_speak()
        assert ranks.word is not None
        failure = ranks.word.leave(str(error) or type(error).__name__)
        # NCCL's end waits for what is under way on the GPU, where other ranks may never come: this one would hang, and
        # its error be seen by nobody. The end of the process waits for nothing.
        if device.type != "cuda":
            dist.destroy_process_group()
        if failure.rank != rank and not isinstance(error, EndedByAnother):
            raise EndedByAnother(failure) from error
        raise
    dist.destroy_process_group()


def _join(device: torch.device, rank: int, count: int) -> Ranks:
    """Meets the other ranks."""
    store = meeting_point(TIMEOUT)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=PrefixStore("ranks", store), rank=rank, world_size=count, timeout=TIMEOUT)
    return Ranks(device, rank, count, word=Word(store, rank))


def environment(config: TrainConfig, ranks: Ranks) -> dict[str, Any]:
    """Returns what may change the last digits of a loss."""
    values: dict[str, Any] = {
        "torch": torch.__version__,
        "device": ranks.device.type,
        "threads": torch.get_num_threads(),
        "compile": config.compile,
        "ranks": ranks.count,
    }
    return values if ranks.count == 1 else {**values, "parallel": config.parallel}


def _device_of(name: str | None, local_rank: int) -> torch.device:
    chosen = choose_device(name)
    if chosen.type != "cuda":
        return chosen
    if ":" in (name or ""):
        raise ConfigError(f"--device {name}: torchrun gives every process a GPU of its own; say --device cuda or cpu.")
    device = choose_device(f"cuda:{local_rank}")
    torch.cuda.set_device(device)
    return device


def _mesh(config: TrainConfig, device: torch.device, count: int) -> DeviceMesh:
    """One dimension of all ranks; or copies of shards, where weights are sharded over fewer ranks than there are."""
    if config.replicas == 1:
        return init_device_mesh(device.type, (count,), mesh_dim_names=("shard",))
    if count % config.replicas:
        raise ConfigError(f"--replicas {config.replicas}: {count} ranks cannot be divided into so many groups.")
    shape = (config.replicas, count // config.replicas)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


def _check_batches(config: TrainConfig, count: int) -> None:
    """Every rank computes as many rows in as many parts: all wait for one another in each."""
    sizes = {"--batch-size": config.batch_size}
    if config.schedule.ramp_steps:
        sizes["--batch-ramp"] = config.schedule.ramp_start
    for option, rows in sizes.items():
        if rows % count:
            raise ConfigError(f"{option}: {rows} rows cannot be cut over {count} ranks; use a multiple of {count}.")
    if config.parallel != "ddp" and config.optimizer.name == "adafactor":
        raise ConfigError(
            f"--parallel {config.parallel} cuts matrices over the ranks, and --optimizer adafactor needs whole ones; "
            "use --parallel ddp, or another optimizer."
        )
    if config.parallel == "ddp" and config.replicas != 1:
        raise ConfigError("--replicas is for zero1, zero2 and zero3; with --parallel ddp every rank is a replica.")


def _is_lost(error: RuntimeError) -> bool:
    """Whether it says that another process is out of reach; gloo's errors are known by their text alone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
