"""Clocks that are set while an agent runs, and answers that end an assignment."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from fedcore.errors import ServerRefused
from workers.agent.assignment.failure import Failure, failure_of
from workers.agent.http import server_clock
from workers.agent.http.server_clock import Clock


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_device_clock_set_while_the_agent_runs(
    monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    real = time.time
    clock = Clock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert abs(clock.now() - before) < 5.0
    clock.observe(formatdate(real(), usegmt=True))
    assert clock.offset_s == 0.0, "the server is where it was"


def test_server_clock_set_while_the_agent_runs() -> None:
    clock = Clock()
    before = clock.now()
    clock.observe(formatdate(time.time() + 3600, usegmt=True))
    assert abs(clock.now() - before - 3600) < 5.0
    clock.observe(formatdate(time.time(), usegmt=True))
    assert abs(clock.now() - before) < 5.0


def test_processes_share_the_servers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that began after this machine's clock was set."""
    main = Clock()
    main.observe_time(time.time() + 3600)
    note = repr(main.epoch_s)
    monkeypatch.setattr(server_clock, "_EPOCH", server_clock._EPOCH + 1e6)
    training = Clock()
    training.epoch_s = float(note)
    assert abs(training.now() - time.time() - 3600) < 5.0


@pytest.mark.parametrize("status", [400, 403, 413, 415, 422])
def test_refused_answer_fails_the_assignment_with_its_reason(status: int) -> None:
    assert failure_of(ServerRefused("no", status)) == Failure("no", False)


@pytest.mark.parametrize("status", [404, 409])
def test_finished_assignment_is_not_reported(status: int) -> None:
    assert failure_of(ServerRefused("over", status)) is None
