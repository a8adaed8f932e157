"""Batches read ahead are the sampler's, for any number of ranks, through resumes, changes of shares and failures."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from dataeng.errors import DataengError, FormatError
from dataeng.formats.mixture import Domain, MixtureManifest, Policy
from trainer.data.loader import Batch, Loader
from trainer.data.rows import MixtureRows
from trainer.data.sampler import SampledStage

WritePack = Callable[..., Path]
SHARES = [SampledStage(shares=(0.6, 0.4))]


@pytest.fixture
def rows(write_pack: WritePack, tmp_path: Path) -> MixtureRows:
    """Two domains of documents of 1 to 19 tokens in rows of 16 + 1, the second with a cap of 3 epochs."""
    domains = {}
    for name, first in (("code", 0), ("web", 100)):
        documents = [[first + i % 100] * (1 + i * 7 % 19) for i in range(60)]
        write_pack(tmp_path / name, name, [documents[:25], documents[25:]])
        tokens = sum(map(len, documents))
        domains[name] = Domain(packs=[name], num_documents=60, num_tokens=tokens, weight=0.5, max_epochs=3)
    manifest = MixtureManifest(
        tokenizer_sha256="b" * 64, vocab_size=257, domains=domains, policy=Policy(name="given"), packing="best-fit"
    )
    return MixtureRows(manifest, tmp_path / "mix.json", 16)


def loader_of(rows: MixtureRows, batch_size: int = 12, **options: int) -> Loader:
    return Loader(rows.reader, rows.sampler(SHARES, 3), lambda step: batch_size, **options)


def values(batch: Batch) -> tuple[object, ...]:
    tensors = {**vars(batch), "documents": batch.documents.index_bt}
    return tuple(tensor.tolist() for tensor in tensors.values())


def pairs(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(batch.domains_b.tolist(), batch.rows_b.tolist(), strict=True))


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_reading_ahead_changes_nothing(rows: MixtureRows, depth: int) -> None:
    sampler = rows.sampler(SHARES, 3)
    with loader_of(rows, depth=depth) as loader:
        for step in range(1, 7):
            batch = loader.next(step)
            domains, numbers = sampler.take(12)
            expected = rows.batch(domains, numbers)
            assert pairs(batch) == list(zip(domains.tolist(), numbers.tolist(), strict=True))
            assert np.array_equal(batch.tokens_bt.numpy(), expected.tokens)
            assert np.array_equal(batch.labels_bt.numpy(), expected.labels)
            assert np.array_equal(batch.num_labels_b.numpy(), expected.labels.sum(1))
            assert np.array_equal(batch.documents.index_bt.numpy(), expected.documents[:, :-1])


@pytest.mark.parametrize("num_ranks", [2, 3, 5])
def test_any_number_of_ranks_reads_the_same_rows_and_resumes_as_another(rows: MixtureRows, num_ranks: int) -> None:
    with loader_of(rows) as alone:
        whole = [pairs(alone.next(step)) for step in range(1, 9)]
    loaders = [loader_of(rows, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    for step in range(1, 5):
        assert [pair for loader in loaders for pair in pairs(loader.next(step))] == whole[step - 1]
    state = json.loads(json.dumps(loaders[0].state()))
    for loader in loaders:
        assert json.loads(json.dumps(loader.state())) == state
        loader.close()
    with loader_of(rows) as resumed:
        resumed.load_state(state)
        assert [pairs(resumed.next(step)) for step in range(5, 9)] == whole[4:]


@pytest.mark.parametrize("stop", range(4))
def test_a_state_between_two_batches_knows_nothing_of_those_that_lie_ready(rows: MixtureRows, stop: int) -> None:
    with loader_of(rows) as loader:
        whole = [values(loader.next(step)) for step in range(1, 6)]
    with loader_of(rows, depth=4) as broken:
        for step in range(1, stop + 1):
            broken.next(step)
        state = broken.state()
    with loader_of(rows) as resumed:
        resumed.load_state(state)
        assert [values(resumed.next(step)) for step in range(stop + 1, 6)] == whole[stop:]


def test_other_shares_apply_from_the_next_batch_on(rows: MixtureRows) -> None:
    sampler = rows.sampler(SHARES, 3)
    expected = [sampler.take(12), sampler.take(12)]
    sampler.set_shares([0.0, 1.0])
    expected.append(sampler.take(12))
    with loader_of(rows, depth=3) as loader:
        found = [loader.next(1), loader.next(2)]
        loader.set_shares([0.0, 1.0])
        found.append(loader.next(3))
    assert set(found[2].domains_b.tolist()) == {1}
    for batch, (domains, numbers) in zip(found, expected, strict=True):
        assert pairs(batch) == list(zip(domains.tolist(), numbers.tolist(), strict=True))


def test_what_lies_ready_does_not_hold_up_other_shares(rows: MixtureRows, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits for room in a full queue is not waited for, however rarely it looks up."""
    monkeypatch.setattr("trainer.data.loader.POLL_SECONDS", 600)
    with loader_of(rows, depth=1) as loader:
        loader.next(1)
        while not loader._queue.full():
            time.sleep(0.001)
        time.sleep(0.05)  # by now the thread has the next one, too
        changing = threading.Thread(target=loader.set_shares, args=([0.0, 1.0],), daemon=True)
        changing.start()
        changing.join(60)
        assert not changing.is_alive()
        assert set(loader.next(2).domains_b.tolist()) == {1}


def test_batches_may_grow(rows: MixtureRows) -> None:
    with loader_of(rows, batch_size=1) as loader:
        expected = [pair for step in range(1, 22) for pair in pairs(loader.next(step))]
    with Loader(rows.reader, rows.sampler(SHARES, 3), lambda step: step) as growing:
        found = [pairs(growing.next(step)) for step in range(1, 7)]
    assert list(map(len, found)) == [1, 2, 3, 4, 5, 6]
    assert [pair for batch in found for pair in batch] == expected


@pytest.mark.parametrize("depth", [0, 2])
def test_rows_that_the_caps_do_not_leave_are_said(rows: MixtureRows, depth: int) -> None:
    most = sum(cap for cap in rows.max_rows if cap is not None)
    with loader_of(rows, batch_size=most // 2, depth=depth) as loader:
        drawn = pairs(loader.next(1)) + pairs(loader.next(2))
        assert len(drawn) == most // 2 * 2
        with pytest.raises(FormatError, match=r"every domain has reached its epoch cap \(rows drawn: code .* of"):
            loader.next(3)


def test_a_damaged_pack_is_said_where_the_batch_is_asked_for(rows: MixtureRows, tmp_path: Path) -> None:
    tokens = np.memmap(tmp_path / "web" / "00001.bin", "<u2", "r+")
    tokens[-1] = 999
    tokens.flush()
    with loader_of(rows) as loader, pytest.raises(FormatError, match=r"web/00001.bin: token id 999 in document 34"):
        for step in range(1, 9):
            loader.next(step)


def test_a_thread_that_died_is_missed(rows: MixtureRows, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had read is still handed out; then nobody waits for it for ever."""
    real = Loader._read_ahead
    monkeypatch.setattr(Loader, "_read_ahead", lambda self, plan: real(self, islice(plan, 2)))
    with loader_of(rows) as loader:
        assert [len(loader.next(step).rows_b) for step in (1, 2)] == [12, 12]
        with pytest.raises(DataengError, match="the thread that reads rows ahead has died"):
            loader.next(3)
