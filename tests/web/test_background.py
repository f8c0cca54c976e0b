"""Calls in the background: their order, their faults, and how many wait."""

from __future__ import annotations

import os
import threading
from functools import partial

import pytest

from webapp.common.background import MAX_WAITING, Background


def fail() -> None:
    raise RuntimeError("a fault")


def finish(background: Background) -> None:
    """Wait until the calls so far have run."""
    done = threading.Event()
    background(done.set)
    assert done.wait(10)


def test_calls_run_in_order_after_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    background, order = Background(), list[int]()
    for number in range(100):
        background(partial(order.append, number))
        background(fail)
    finish(background)
    assert order == list(range(100))
    assert "RuntimeError: a fault" in caplog.text


def test_caller_waits_for_no_call() -> None:
    """The oldest calls make room for new ones."""
    background, gate, entered = Background(), threading.Event(), threading.Event()
    order: list[int] = []
    background(lambda: (entered.set(), gate.wait(30)))
    assert entered.wait(10)
    for number in range(MAX_WAITING + 10):
        background(partial(order.append, number))
    assert order == []
    gate.set()
    finish(background)
    assert order[-1] == MAX_WAITING + 9
    assert MAX_WAITING - 1 <= len(order) <= MAX_WAITING


def test_forked_process_has_a_thread_of_its_own() -> None:
    background = Background()
    finish(background)
    child = os.fork()
    if child == 0:
        finish(background)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
