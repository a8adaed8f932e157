"""Batches for one rank, read by a thread while the step before is computed.

The order of rows is the sampler's, whether or not a thread reads ahead and however far. What counts as drawn is what
was handed out: a state taken between two batches knows nothing of those that lie ready.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataeng.errors import DataengError
from dataeng.packing.reading import RowReader
from trainer.data.sampler import MixtureSampler, rank_part
from trainer.model.attention import Documents, found_documents

Ints = npt.NDArray[np.int64]

#: Rows planned at a time: planning some thousands takes hardly longer than planning one batch.
PLANNED_ROWS = 4096
POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This rank's B rows of a step, in CPU memory, pinned for GPUs.

    ``tokens_bt`` int32 [B, L + 1], ``labels_bt`` uint8 [B, L] (1 where token t + 1 counts as the label of token t),
    ``num_labels_b`` int64 [B] (how many do), the ``documents`` of the inputs [B, L], ``domains_b`` and ``rows_b`` int64
    [B].
    """

    tokens_bt: Tensor
    labels_bt: Tensor
    num_labels_b: Tensor
    documents: Documents
    domains_b: Tensor
    rows_b: Tensor

    def part(self, start: int, stop: int) -> Batch:
        """Returns some neighbouring rows."""
        return Batch(
            tokens_bt=self.tokens_bt[start:stop],
            labels_bt=self.labels_bt[start:stop],
            num_labels_b=self.num_labels_b[start:stop],
            documents=self.documents.part(start, stop),
            domains_b=self.domains_b[start:stop],
            rows_b=self.rows_b[start:stop],
        )


class Loader:
    """Hands out one batch a step. ``batch_size`` gives a step's rows of all ranks together; each gets its `rank_part`.

    ``depth`` is how many batches lie ready; 0 reads them when they are asked for, without a thread. ``device`` is where
    they are wanted: for a GPU they are made in pinned memory.
    """

    def __init__(
        self,
        reader: RowReader,
        sampler: MixtureSampler,
        batch_size: Callable[[int], int],
        *,
        rank: int = 0,
        num_ranks: int = 1,
        depth: int = 2,
        device: torch.device | None = None,
    ) -> None:
        self.reader, self.sampler, self.batch_size = reader, sampler, batch_size
        self.rank, self.num_ranks = rank, num_ranks
        self.depth, self.device = depth, torch.device("cpu") if device is None else device
        self._queue: Queue[Batch | BaseException] = Queue(max(1, depth))
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._plan: Iterator[tuple[Ints, Ints]] | None = None
        self._next_step = 0  # of what lies ready

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def next(self, step: int) -> Batch:
        """Returns the batch of a step; raises `FormatError` when the epoch caps leave too few rows for it."""
        if step != self._next_step:
            self.close()
        if self._plan is None:
            self._plan = self._planned(self.sampler.clone(), step)
            if self.depth:
                self._start(self._plan)
        domains = self.sampler.pass_over(self.batch_size(step))  # says so if there are not enough
        self._next_step = step + 1
        if not self.depth:
            return self._read(*next(self._plan))
        found = self._get()
        if isinstance(found, BaseException):
            self.close()
            raise found
        assert np.array_equal(found.domains_b.numpy(), domains[rank_part(len(domains), self.rank, self.num_ranks)])
        return found

    def set_shares(self, shares: Sequence[float]) -> None:
        """Plans with other shares of rows from the next batch on; see `MixtureSampler.set_shares`."""
        self.close()
        self.sampler.set_shares(shares)

    def state(self) -> dict[str, Any]:
        """Returns where the rows handed out so far end, for any number of ranks."""
        return self.sampler.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`."""
        self.close()
        self.sampler.load_state(state)

    def close(self) -> None:
        """Ends reading ahead, and forgets what lies ready; `next` begins anew after the last batch handed out."""
        self._plan = None
        if self._thread is None:
            return
        self._stopping.set()
        self._forget()  # a thread that waits for room goes on at once, and finds that it is to stop
        self._thread.join()
        self._thread = None
        self._forget()

    def _forget(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                return

    def _planned(self, sampler: MixtureSampler, step: int) -> Iterator[tuple[Ints, Ints]]:
        """Yields domains and rows of this rank's part of each step, until too few rows are left for one."""
        while True:
            sizes = [self.batch_size(step)]
            while sum(sizes) + self.batch_size(step + len(sizes)) <= PLANNED_ROWS:
                sizes.append(self.batch_size(step + len(sizes)))
            domains, rows = sampler.take_up_to(sum(sizes))
            first = 0
            for size in sizes:
                if first + size > len(rows):
                    return
                part = rank_part(size, self.rank, self.num_ranks)
                chosen = slice(first + part.start, first + part.stop)
                yield domains[chosen], rows[chosen]
                first += size
            step += len(sizes)

    def _start(self, plan: Iterator[tuple[Ints, Ints]]) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._read_ahead, args=(plan,), name="loader", daemon=True)
        self._thread.start()

    def _read_ahead(self, plan: Iterator[tuple[Ints, Ints]]) -> None:
        """Puts batches into the queue until it is told to stop, the rows are all drawn, or something fails."""
        try:
            for domains, rows in plan:
                if self._stopping.is_set() or not self._put(self._read(domains, rows)):
                    return
        except BaseException as error:  # handed to whoever asks for the batch that could not be made
            self._put(error)

    def _get(self) -> Batch | BaseException:
        assert self._thread is not None
        while True:
            try:
                return self._queue.get(timeout=POLL_SECONDS)
            except Empty:
                if not self._thread.is_alive() and self._queue.empty():
                    raise DataengError("the thread that reads rows ahead has died.") from None

    def _put(self, item: Batch | BaseException) -> bool:
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=POLL_SECONDS)
            except Full:
                continue
            return True
        return False

    def _read(self, domains: Ints, rows: Ints) -> Batch:
        count, length = len(rows), self.reader.sequence_length
        pinned = self.device.type == "cuda"
        tokens_bt = torch.empty(count, length + 1, dtype=torch.int32, pin_memory=pinned)
        labels_bt = torch.empty(count, length, dtype=torch.uint8, pin_memory=pinned)
        documents_bt = torch.empty(count, length + 1, dtype=torch.int32, pin_memory=pinned)
        self.reader.read(domains, rows, (tokens_bt.numpy(), labels_bt.numpy(), documents_bt.numpy()))
        return Batch(
            tokens_bt=tokens_bt,
            labels_bt=labels_bt,
            num_labels_b=labels_bt.sum(1, dtype=torch.int64),
            documents=found_documents(documents_bt[:, :-1], self.device),
            domains_b=torch.from_numpy(domains.copy()),
            rows_b=torch.from_numpy(rows.copy()),
        )
