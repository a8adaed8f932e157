"""Ctrl-C that is not lost.

Python turns SIGINT into a KeyboardInterrupt wherever it happens to be. Where that is a function which compiled code has
called, and whose errors it does not look at, the interrupt is gone and the run goes on: about one time in thirty when
the signal came just after a task was committed. So a person's wish is repeated until it is seen to be carried out.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

#: Between a KeyboardInterrupt and a look at whether it was lost.
AGAIN_SECONDS = 1.0


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raises KeyboardInterrupt again in the block where one was swallowed; what cleans up after one is left in peace.

    Does nothing outside the main thread, or where somebody else handles SIGINT.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    reminder = _Reminder()
    signal.signal(signal.SIGINT, reminder.handle)
    try:
        yield
    finally:
        reminder.end()
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Reminder:
    def __init__(self) -> None:
        self.main = threading.main_thread().ident
        self.timer: threading.Timer | None = None
        self.reminding = self.ended = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        reminded, self.reminding = self.reminding, False
        if self.ended:
            return
        self.timer = threading.Timer(AGAIN_SECONDS, self._remind)
        self.timer.daemon = True
        self.timer.start()
        if not (reminded and _is_being_handled()):
            raise KeyboardInterrupt

    def _remind(self) -> None:
        if not self.ended and self.main is not None:
            self.reminding = True
            signal.pthread_kill(self.main, signal.SIGINT)  # the main thread's own: it may be asleep

    def end(self) -> None:
        self.ended = True
        if self.timer is not None:
            self.timer.cancel()


def _is_being_handled() -> bool:
    """Whether the main thread is in an ``except``, a ``finally`` or the end of a ``with`` after a KeyboardInterrupt."""
    error: BaseException | None = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
