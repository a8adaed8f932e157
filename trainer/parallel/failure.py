"""Why a run of several processes failed, said once: by the rank that it happened to.

When one rank fails, the others find their connections to it cut. Before it lets go of them it leaves word in the store
that the ranks met at, which is torchrun's and outlives them; they find it there and end in silence. A rank that was
killed leaves no word: then the first one to miss it speaks. torchrun's own summary repeats what was said.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dataeng.errors import DataengError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

#: How long to wait for the words of a rank that has begun to speak, or for the store when nothing else is left to do.
PATIENCE = timedelta(seconds=10)


@dataclass(frozen=True)
class Failure:
    """What ended a run: on which rank, on which machine, and what it was."""

    rank: int
    host: str
    what: str


class EndedByAnother(DataengError):  # noqa: N818 - not a fault of this rank's
    """This rank ends because another one has failed, and has said why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"rank {failure.rank} on {failure.host}: {failure.what}")


class LostRank(DataengError):  # noqa: N818 - what the field calls it
    """Another rank is gone, or does not answer, and has left no word."""


class Word:
    """What the ranks of a run know of its failure, kept in the ``store`` that they met at."""

    def __init__(self, store: Store, rank: int) -> None:
        from torch.distributed.distributed_c10d import PrefixStore

        self.store, self.rank = PrefixStore("trainer", store), rank

    def leave(self, what: str, is_cause: bool = True) -> Failure:
        """Returns the run's first failure: this one, unless another rank has left word before.

        Once it has returned, all others find it. May be called again; the first word stays. ``is_cause`` False is for
        a rank that misses another one, of whose end torchrun knows more.
        """
        own = Failure(self.rank, socket.gethostname(), what)
        try:
            if self.store.add("failures", 1) > 1:
                self.store.wait(["failure"], PATIENCE)
                return self._read()
            self.store.set("failure", json.dumps(asdict(own)))
            self.store.check(["failure"])  # answered only after what came before
        except RuntimeError:  # the store is gone as well, or who began to speak
            return own
        if is_cause:
            _tell_torchrun(own)
        return own

    def found(self) -> Failure | None:
        """Returns the first failure, if any rank has left word of one."""
        return self._read() if self.store.check(["failure"]) else None

    def _read(self) -> Failure:
        return Failure(**json.loads(self.store.get("failure")))


def last_word(error: Exception) -> str | None:
    """Returns what this process is to say of what ends it: None where another rank on this machine has said it.

    The first rank names what happened on another machine, whose messages nobody may be looking at.
    """
    rank, host = os.environ.get("RANK"), socket.gethostname()
    if rank is None or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None if isinstance(error, EndedByAnother) else str(error)
    let_speak()
    failure = Failure(int(rank), host, str(error))
    with contextlib.suppress(RuntimeError):  # torchrun is gone
        failure = Word(meeting_point(PATIENCE), int(rank)).leave(str(error))
    if failure.rank == int(rank):
        return str(error)
    return str(EndedByAnother(failure)) if rank == "0" and failure.host != host else None


def meeting_point(timeout: timedelta) -> Store:
    """Returns the store that the ranks meet at, as the environment says: torchrun's, or else the first rank's."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=timeout))
    found: Store = store
    return found


def let_speak() -> None:
    """Makes torchrun's SIGTERM, which follows the end of any rank at once, wait for this one's last word.

    For a process that is ending anyhow; torchrun kills it 30 seconds later if it is not. Does nothing without ranks.
    """
    if "RANK" in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _tell_torchrun(failure: Failure) -> None:
    """Puts it where torchrun looks for the root cause that it prints at the end; see `torch.distributed.elastic`."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        message = {"message": failure.what, "extraInfo": {"timestamp": str(int(time.time()))}}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": message}))
