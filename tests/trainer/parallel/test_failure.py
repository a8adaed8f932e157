"""When one of several ranks fails: all end, one of them says why, and the last checkpoint is there to go on from."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from dataeng.errors import ConfigError
from dataeng.formats.atomic import sha256_file
from tests.trainer.parallel.failing_process import STEP, config_of, run
from tests.trainer.parallel.test_ranks import start
from tests.trainer.test_loop import assert_same_run
from trainer.parallel.failure import EndedByAnother, Failure, LostRank, Word, last_word
from trainer.recovery.checkpoint import CheckpointFolder

Outcome = dict[str, str | None]


def carried_out(folder: Path, orders: list[dict[str, Any]]) -> tuple[list[list[Outcome]], list[int]]:
    """Lets two ranks carry out the orders as under torchrun, whose store outlives them; outcomes, and exit codes."""
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in orders]
    path = folder / "orders.json"
    path.write_text(json.dumps([{**o, "port": s.port} for o, s in zip(orders, stores, strict=True)]))
    command = ["-m", "tests.trainer.parallel.failing_process", str(path)]
    ranks = [start(rank, stores[0].port, command, TORCHELASTIC_USE_AGENT_STORE="True") for rank in range(2)]
    codes = []
    for process in ranks:
        try:
            process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            for each in ranks:
                each.kill()
            raise
        codes.append(process.returncode)
    found = [[json.loads(line) for line in Path(f"{path}.{rank}").read_text().splitlines()] for rank in range(2)]
    return found, codes


def tensor_files(out: Path, step: int) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in (out / f"checkpoints/step-{step:08d}").glob("*.safetensors")}


def test_two_ranks_of_which_one_fails(module_mixture: Path, tmp_path: Path) -> None:
    """All in one pair of processes, since starting them is what takes time."""

    def order(name: str, fault: str = "none", parallel: str = "zero3", **more: Any) -> dict[str, Any]:
        options = {"mixture": str(module_mixture), "out": str(tmp_path / name), "parallel": parallel, **more}
        return {"options": options, "fault": fault}

    for name in ("again", "again-background"):  # by one process alone
        run(config_of(order(name)["options"]))
    altered = tmp_path / "altered"
    shutil.copytree(module_mixture.parents[1], altered)
    tokens = min(altered.glob("run/packs/*/*.bin"), key=lambda path: path.stat().st_size)
    tokens.write_bytes(bytes([tokens.read_bytes()[0] ^ 1]) + tokens.read_bytes()[1:])
    orders = [
        order("zero3"),
        order("bug", "bug"),
        order("bug"),
        order("full", "full disk"),
        order("full"),
        order("reader", "dying reader"),
        order("altered-run", mixture=str(altered / "manifests/mix.json")),
        order("again", "saved again"),
        order("again-background", "saved again", "zero2", background_checkpoints=True),
        order("killed", "killed", "ddp"),
    ]
    expected = {name: tensor_files(tmp_path / name, 4) for name in ("again", "again-background")}
    outcomes, codes = carried_out(tmp_path, orders)

    fine: Outcome = {"error": None, "said": None}
    silent: Outcome = {"error": "EndedByAnother", "said": None}
    by_order = list(zip(*(found[: len(orders) - 1] for found in outcomes), strict=True))
    assert [both for both in by_order if both == (fine, fine)] == [(fine, fine)] * 5, by_order
    bug, full, reader, pack = (by_order[i] for i in (1, 3, 5, 6))
    assert bug == (silent, {"error": "ValueError", "said": "a bug"})
    assert full[0]["error"] == "DataengError" and full[1] == silent
    assert "File too large; the checkpoint of step 2 is intact. Make room; the" in str(full[0]["said"])
    host = socket.gethostname()
    status = json.loads((tmp_path / "reader/training.json").read_text())["status"]
    assert status == f"failed: rank 1 on {host}: the thread that reads rows ahead has died."
    assert reader == (silent, {"error": "DataengError", "said": "the thread that reads rows ahead has died."})
    (found,) = (each for each in pack if each != silent)
    assert found["error"] == "FormatError" and f"{tokens.name} was altered" in str(found["said"])
    assert not (tmp_path / "altered-run").exists()
    for name in ("bug", "full"):
        assert_same_run(tmp_path / name, tmp_path / "zero3", 4)

    # Whole tensors are the same bytes whether one process writes them or two that hold parts.
    for name, files in expected.items():
        assert len(files) == 3 and tensor_files(tmp_path / name, 4) == files

    assert codes == [0, -signal.SIGKILL]
    survivor = outcomes[0][-1]
    assert survivor["error"] == "LostRank"
    assert survivor["said"] == (
        "another process of this run has ended without a word (killed, or its machine is gone); the checkpoint of step "
        "2 is intact. The same command goes on."
    )
    described = json.loads((tmp_path / "killed/training.json").read_text())
    assert described["status"] == f"failed: {survivor['said']}" and described["step"] == STEP
    assert CheckpointFolder(tmp_path / "killed/checkpoints", {}, 2).steps() == [2]


@pytest.fixture
def store() -> dist.HashStore:
    return dist.HashStore()


def test_the_first_word_stays(store: dist.HashStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    first, second = Word(store, 3), Word(store, 0)
    assert second.found() is None
    failure = Failure(3, socket.gethostname(), "the disk is full")
    assert first.leave("the disk is full") == failure
    assert second.leave("lost") == failure == second.found()
    assert first.leave("something else") == failure
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert message["message"] == "the disk is full" and int(message["extraInfo"]["timestamp"]) > 0


def test_torchrun_knows_more_of_a_rank_that_was_killed(
    store: dist.HashStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    Word(store, 0).leave("another one is gone", is_cause=False)
    assert not list(tmp_path.iterdir())


def test_without_a_store_everybody_speaks(store: dist.HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> int:
        raise dist.DistNetworkError("broken pipe")

    Word(store, 0).leave("before it was gone")
    word = Word(store, 1)
    monkeypatch.setattr(word, "store", SimpleNamespace(add=gone))
    assert word.leave("what") == Failure(1, socket.gethostname(), "what")


@pytest.mark.parametrize(("rank", "said"), [("0", "rank 9 on elsewhere: no such file"), ("1", None)])
def test_the_first_rank_says_what_happened_on_another_machine(
    store: dist.HashStore, monkeypatch: pytest.MonkeyPatch, rank: str, said: str | None
) -> None:
    with monkeypatch.context() as there:
        there.setattr("socket.gethostname", lambda: "elsewhere")
        failure = Word(store, 9).leave("no such file")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr("trainer.parallel.failure.meeting_point", lambda _: store)
    try:
        assert last_word(EndedByAnother(failure)) == said
        assert last_word(ConfigError("no such file")) == said  # before the ranks have met
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # torchrun's, for the failure of the other one
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_process_speaks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    assert last_word(LostRank("what")) == "what"
    assert signal.getsignal(signal.SIGTERM) is before
