"""Several processes compute what one computes: losses, weights, rows; through every way to spread a model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from dataeng.errors import ConfigError, DataengError
from dataeng.mixture.replay import departure, read_recorded, replay
from tests.trainer.rank_process import carry_out
from trainer.config import TrainConfig
from trainer.parallel.failure import EndedByAnother, LostRank, Word
from trainer.parallel.ranks import Ranks, open_ranks

MakeConfig = Callable[..., TrainConfig]
Order = dict[str, Any]
STEPS = 6
#: What each way is tried with; every one of them is compared with one process that does the same.
WAYS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero1": {"accumulate": 2},
    "zero2": {"recompute_every": 1},
    "zero3": {"optimizer": "lion", "learning_rate": 3e-4},
    "zero3-replicas": {"replicas": 2},
    "zero2-muon": {"optimizer": "muon", "accumulate": 2},
}


#: Twelve rows in all: a whole call for the first rank, and half of one for the second.
VALIDATION = {"validate_tokens": 32 * 4, "update_ratio_every": 3}


def options_of(mixture: Path, out: Path, **more: Any) -> dict[str, Any]:
    values = {"steps": STEPS, "batch_size": 4, "sequence_length": 32, "threads": 1, "checkpoint_every": 3}
    return {
        "mixture": str(mixture),
        "out": str(out),
        "device": "cpu",
        **values,
        **VALIDATION,
        "validate": str(mixture),
        **more,
    }


def work(folder: Path, orders: list[Order]) -> None:
    """Lets two processes carry out the same orders, and waits for them."""
    path = folder / "order.json"
    ports = free_ports(len(orders))
    path.write_text(json.dumps([{**order, "port": port} for order, port in zip(orders, ports, strict=True)]))
    started = [start(rank, ports[0], ["-m", "tests.trainer.rank_process", str(path)]) for rank in range(2)]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def start(rank: int, port: int, arguments: list[str], **more: str) -> subprocess.Popen[str]:
    """Starts one of two ranks as torchrun does, with ``more`` in its environment."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **meeting, **ranks, **more},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, module_mixture: Path) -> Path:
    """All ways with two ranks and the same runs with one; and runs that change their number of ranks half-way."""
    folder = tmp_path_factory.mktemp("ranks")

    def order(name: str, parallel: str = "ddp", **more: Any) -> Order:
        options = options_of(module_mixture, folder / name, parallel=parallel, **more)
        return {"options": options, "rows": str(folder / f"{name}.rows")}

    for way, more in WAYS.items():
        carry_out(order(f"{way}-1", **{**more, "replicas": 1}), "0")
    shutil.copytree(folder / "zero1-1", folder / "one-then-two")
    several = [order(f"{way}-2", way.split("-")[0], **more) for way, more in WAYS.items()]
    work(folder, [*several, order("one-then-two", "zero3", resume_from=3, **WAYS["zero1"])])
    for way in ("zero1", "zero3"):
        shutil.copytree(folder / f"{way}-2", folder / f"{way}-then-one")
        carry_out(order(f"{way}-then-one", resume_from=3, **WAYS[way]), "0")
    return folder


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / name / "*.parquet").sort("step")


def rows(runs: Path, name: str) -> list[list[tuple[int, int]]]:
    """Returns (domain, row) of every step, of all ranks in their order."""
    ranks = [json.loads(path.read_text()) for path in sorted(runs.glob(f"{name}.rows.*"))]
    return [
        [pair for domains, numbers in parts for pair in zip(domains, numbers, strict=True)]
        for parts in zip(*ranks, strict=True)
    ]


def assert_same_numbers(one: Path, other: Path) -> None:
    """Metrics of all steps and the last weights, but for their last digits."""
    first, second = (table(out, "metrics") for out in (one, other))
    assert first["tokens"].to_list() == second["tokens"].to_list()
    # Muon computes in bfloat16, in which a last digit is a large one.
    np.testing.assert_allclose(
        first["loss"].to_numpy(), second["loss"].to_numpy(), rtol=1e-4 if "muon" in one.name else 2e-5
    )
    for column in ("weight", "multiplier"):  # a softmax over losses of which the range is set to 1
        np.testing.assert_allclose(first[column].to_numpy(), second[column].to_numpy(), rtol=1e-3)
    first, second = (table(out, "steps") for out in (one, other))
    assert first["update_ratio"].is_not_null().to_list() == [step in (1, 3, 6) for step in first["step"]]
    for column in ("loss", "weighted_loss", "gradient_norm", "learning_rate", "update_ratio"):
        np.testing.assert_allclose(first[column].to_numpy(), second[column].to_numpy(), rtol=1e-3)
    first, second = (table(out, "validation") for out in (one, other))
    assert first.select("step", "domain", "tokens").equals(second.select("step", "domain", "tokens"))
    assert first["step"].unique().sort().to_list() == [0, 3, 6]
    np.testing.assert_allclose(first["loss"].to_numpy(), second["loss"].to_numpy(), rtol=1e-4)
    weights, expected = (load_file(out / f"checkpoints/step-{STEPS:08d}/model.safetensors") for out in (one, other))
    assert {name: value.shape for name, value in weights.items()} == {n: v.shape for n, v in expected.items()}
    distance = sum(float((value - expected[name]).square().sum()) for name, value in weights.items())
    assert distance < 1e-6 * sum(float(value.square().sum()) for value in expected.values())


@pytest.mark.parametrize("way", WAYS)
def test_ranks_compute_what_one_process_does(runs: Path, way: str) -> None:
    assert_same_numbers(runs / f"{way}-2", runs / f"{way}-1")
    assert rows(runs, f"{way}-2") == rows(runs, f"{way}-1")


@pytest.mark.parametrize(("name", "like"), [("one-then-two", "zero1-1"), ("zero1-then-one", "zero1-1")])
def test_another_number_of_ranks_goes_on_with_the_same_rows(runs: Path, name: str, like: str) -> None:
    assert rows(runs, name) == rows(runs, like)[3:]
    assert_same_numbers(runs / name, runs / like)


def test_sharded_weights_and_moments_are_saved_whole(runs: Path) -> None:
    assert rows(runs, "zero3-then-one") == rows(runs, "zero3-1")[3:]
    assert_same_numbers(runs / "zero3-then-one", runs / "zero3-1")
    state = json.loads((runs / "zero3-2/checkpoints/step-00000003/state.json").read_text())
    assert state["environment"]["ranks"] == 2 and state["environment"]["parallel"] == "zero3"


@pytest.mark.parametrize("name", [*(f"{way}-2" for way in WAYS), "one-then-two", "zero3-then-one"])
def test_what_several_ranks_saw_together_replays_bit_for_bit(runs: Path, name: str) -> None:
    recorded = read_recorded(runs / name)
    assert departure(recorded, replay(recorded, recorded.reweighting)) is None


def test_torchrun_stops_all_ranks_and_goes_on(module_mixture: Path, tmp_path: Path) -> None:
    """SIGTERM reaches the ranks at different moments; they agree on the step after which they end."""
    options = options_of(module_mixture, tmp_path / "out", steps=400, checkpoint_every=1000)
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*torchrun, "-m", "trainer", *arguments, "--parallel=zero2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert "2 ranks, weights by zero2" in next(line for line in process.stdout if "ranks" in line)
    assert next(line for line in process.stdout if line.startswith("step "))
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=120)
    assert said.count("stopped; the same command goes on") == 1, said + errors  # the first rank speaks for all
    described = json.loads((tmp_path / "out/training.json").read_text())
    (saved,) = (tmp_path / "out/checkpoints").iterdir()
    assert (described["status"], saved.name) == ("stopped", f"step-{described['step']:08d}")
    assert table(tmp_path / "out", "steps")["step"].to_list() == list(range(1, described["step"] + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 5}, r"--batch-size: 5 rows cannot be cut over 2 ranks; use a multiple of 2"),
        ({"batch_ramp": (1, 3)}, r"--batch-ramp: 1 rows cannot be cut over 2 ranks"),
        ({"parallel": "zero3", "optimizer": "adafactor"}, r"--optimizer adafactor needs whole ones; use --parallel"),
        ({"replicas": 2}, r"--replicas is for zero1, zero2 and zero3"),
    ],
)
def test_what_cannot_be_cut_is_said_before_anything_starts(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match=message), open_ranks(make_config(**options)):
        pass


@pytest.mark.parametrize(
    ("device", "fails", "destroyed"), [("cuda", True, 0), ("cuda", False, 1), ("cpu", True, 1), ("cpu", False, 1)]
)
def test_an_error_does_not_wait_for_other_ranks_gpus(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, device: str, fails: bool, destroyed: int
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    joined: list[str] = []
    left: list[None] = []
    monkeypatch.setattr("trainer.parallel.ranks._device_of", lambda *_: torch.device(device))
    monkeypatch.setattr("trainer.parallel.ranks._mesh", lambda *_: None)
    monkeypatch.setattr("trainer.parallel.ranks.let_speak", lambda: None)  # it is not this process that ends
    monkeypatch.setattr("trainer.parallel.ranks.meeting_point", lambda _: torch.distributed.HashStore())
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **_: joined.append(backend))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append(None))
    failure = pytest.raises(OSError, match="disk") if fails else contextlib.nullcontext()
    with failure, open_ranks(make_config(batch_size=4)) as ranks:
        assert (ranks.rank, ranks.count) == (1, 2)
        if fails:
            raise OSError("disk")
    assert joined == ["cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"]
    assert len(left) == destroyed


def test_one_process_has_no_replicas(make_config: MakeConfig) -> None:
    message = "--replicas 2: there is one process; torchrun starts several"
    with pytest.raises(ConfigError, match=message), open_ranks(make_config(replicas=2, parallel="zero3")):
        pass


def test_ranks_that_differ_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(torch.device("cpu"), 0, 2)
    other = [1.0, 2.0]
    monkeypatch.setattr(ranks, "gather", lambda values: np.stack([values, np.array(other)]))
    ranks.agree(np.array([1.0, 2.0]), "weights")
    with pytest.raises(DataengError, match=r"the ranks differ in weights: \[1.0, 3.0\]; \[1.0, 2.0\]"):
        ranks.agree(np.array([1.0, 3.0]), "weights")


def two_ranks() -> list[Ranks]:
    store = torch.distributed.HashStore()
    return [Ranks(torch.device("cpu"), rank, 2, word=Word(store, rank)) for rank in range(2)]


def test_long_work_is_left_together() -> None:
    left: list[int] = []
    first, second = two_ranks()

    def work(ranks: Ranks) -> None:
        with ranks.long_work("checking") as piece_done:
            piece_done()
        left.append(ranks.rank)

    waiting = threading.Thread(target=work, args=(first,))
    waiting.start()
    waiting.join(0.05)
    assert left == []  # whatever its pace, it cannot leave alone
    work(second)
    waiting.join(60)
    assert sorted(left) == [0, 1]


class Looked:
    """What the other rank does while one sleeps between two looks at the store, ten minutes each time."""

    def __init__(self, meanwhile: list[Callable[[], object]]) -> None:
        self.meanwhile = meanwhile
        self.num_looks = 0

    def sleep(self, _: float) -> None:
        self.num_looks += 1
        if self.meanwhile:
            self.meanwhile.pop(0)()

    def monotonic(self) -> float:
        return 600.0 * self.num_looks


def looked_at(monkeypatch: pytest.MonkeyPatch, meanwhile: list[Callable[[], object]]) -> Looked:
    looked = Looked(meanwhile)
    monkeypatch.setattr("trainer.parallel.ranks.time", looked)
    return looked


def test_long_work_takes_as_long_as_somebody_is_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two_ranks()
    with contextlib.ExitStack() as stack:
        piece_done = stack.enter_context(second.long_work("checking"))
        # An hour and a half; then it is done.
        looked = looked_at(monkeypatch, [*[piece_done] * 9, stack.close])
        with first.long_work("checking"):
            pass
        assert looked.num_looks == 10


def test_long_work_that_nobody_does_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = two_ranks()
    looked = looked_at(monkeypatch, [])
    with pytest.raises(LostRank, match="has not answered for 30 minutes"), first.long_work("checking"):
        pass
    assert looked.num_looks == 4  # thirty minutes, and one more


def test_long_work_of_which_another_part_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two_ranks()
    word = second.word
    assert word is not None
    looked_at(monkeypatch, [lambda: None, lambda: word.leave("a damaged file")])
    with pytest.raises(EndedByAnother, match=r"rank 1 on .*: a damaged file"), first.long_work("checking"):
        pass


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (RuntimeError("[…/gloo/transport/tcp/pair.cc:537] Connection reset by peer"), LostRank),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), LostRank),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
    ],
)
def test_only_errors_of_connections_mean_that_a_rank_is_lost(error: Exception, found: type[Exception]) -> None:
    ranks, _ = two_ranks()
    with pytest.raises(Exception) as caught, ranks.others_there():
        raise error
    assert type(caught.value) is found
