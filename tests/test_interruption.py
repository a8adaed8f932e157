"""A swallowed Ctrl-C comes again; one that is being carried out does not."""

from __future__ import annotations

import contextlib
import signal
import threading
import time

import pytest

from dataeng import interruption
from dataeng.interruption import interrupts_kept


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "AGAIN_SECONDS", 0.05)


def swallow() -> None:
    """What compiled code does with an error of a function that it calls and does not need."""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_swallowed_interrupt_comes_again() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        swallow()
        time.sleep(60)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_comes_until_it_is_not_swallowed() -> None:
    swallowed = 0
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        swallow()
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                swallowed += 1
                if swallowed == 3:
                    raise
    assert swallowed == 3


def test_what_cleans_up_is_left_in_peace() -> None:
    cleaned = []
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            time.sleep(0.3)
            try:
                raise ValueError("an error of its own")
            except ValueError:
                time.sleep(0.2)
            cleaned.append(True)
    assert cleaned == [True]


def test_a_second_interrupt_by_the_person_acts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")


def test_others_handlers_and_threads_are_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_kept():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    found = []

    def elsewhere() -> None:
        with interrupts_kept():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
