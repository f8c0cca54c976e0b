"""The agent whose first work is done and never sent: ``python -m tests.stack.slow_sender run ...``.

All other code is the agent's. A file in its state folder marks that the work is done, so that a
test can kill it at that point, when all its state is written. Started again, it sends the update.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.agent.agent_settings import AgentSettings
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, Outcome, Received, Trainer
from workers.agent.assignment.trainer_factory import real_trainer
from workers.agent.cli import main

DONE = "did-not-send"


class SlowSender:
    def __init__(self, inner: Trainer, done: Path) -> None:
        self._inner, self._done = inner, done

    def train(
        self, work: AssignedWork, received: Received, update: Path, callbacks: Callbacks
    ) -> Outcome:
        return self._wait_unsent(self._inner.train(work, received, update, callbacks), work)

    def evaluate(self, work: AssignedWork, weights: Path, callbacks: Callbacks) -> Outcome:
        return self._inner.evaluate(work, weights, callbacks)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, callbacks: Callbacks
    ) -> Outcome:
        return self._wait_unsent(self._inner.fold(work, updates, update, callbacks), work)

    def _wait_unsent(self, outcome: Outcome, work: AssignedWork) -> Outcome:
        if not self._done.exists():
            self._done.write_text(work.assignment)
            time.sleep(3600)
        return outcome


def make_trainer(settings: AgentSettings, profile: dict[str, Any]) -> Trainer:
    return SlowSender(real_trainer(settings, profile), settings.state_dir / DONE)


if __name__ == "__main__":
    sys.exit(main(trainer="tests.stack.slow_sender:make_trainer"))
