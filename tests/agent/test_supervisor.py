"""The supervisor has a new phase of the training process reported at once."""

from __future__ import annotations

import os
from pathlib import Path

from workers.agent.control.supervisor import StopRequest, Supervisor
from workers.agent.state.database import StateDatabase
from workers.agent.state.shared_state import Activity, SharedState


def test_new_phase_hurries_the_measurements_once(tmp_path: Path) -> None:
    shared_state = SharedState(StateDatabase(tmp_path / "agent.sqlite3"))
    hurried: list[str] = []
    supervisor = Supervisor(
        shared_state,
        StopRequest(),
        lambda: hurried.append("now"),
        lambda loss: None,
        lambda: None,
    )
    seen = []
    for phase, step in (("training", 0), ("training", 1), ("uploading", 1)):
        shared_state.set_activity(Activity("one", phase, step, 3, os.getpid()))
        supervisor.tick()
        seen.append(len(hurried))
    shared_state.set_activity(Activity("another", "uploading", 0, 3, os.getpid()))
    supervisor.tick()
    assert [*seen, len(hurried)] == [1, 1, 2, 3]
