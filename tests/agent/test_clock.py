"""Clocks that are set while an agent runs, and answers that end an assignment."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from fedcore.errors import ServerRefused
from workers.agent.assignment.failure import Failure, failure_of
from workers.agent.http.byte_counts import Traffic
from workers.agent.http.server_clock import Clock
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.sender import CLOCK_NOTE, Sender


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


class _Late:
    """A server whose clock is an hour ahead."""

    def __init__(self) -> None:
        self.clock, self.traffic = Clock(), Traffic()

    def measurements(self, body: object) -> dict[str, object]:
        self.clock.observe(formatdate(time.time() + 3600, usegmt=True))
        return {"acked_seq": 0, "interval_s": 1.0, "cancel": []}


def test_training_process_takes_server_clock_from_sender(tmp_path: Path) -> None:
    """Otherwise it would refuse every offer as expired, as it makes no call of its own."""
    database = StateDatabase(tmp_path / "agent.sqlite3")
    shared_state = SharedState(database)
    sender = Sender(_Late(), Outbox(database), shared_state, "boot", lambda reason: None)  # type: ignore[arg-type]
    sender.turn()
    assert abs(float(shared_state.read_note(CLOCK_NOTE)) - 3600) < 5.0


@pytest.mark.parametrize("status", [400, 403, 413, 415, 422])
def test_refused_answer_fails_the_assignment_with_its_reason(status: int) -> None:
    assert failure_of(ServerRefused("no", status)) == Failure("no", False)


@pytest.mark.parametrize("status", [404, 409])
def test_finished_assignment_is_not_reported(status: int) -> None:
    assert failure_of(ServerRefused("over", status)) is None
