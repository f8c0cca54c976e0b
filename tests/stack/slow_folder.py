"""The agent whose first fold takes for ever: ``python -m tests.stack.slow_folder run ...``.

All other code is the agent's. A file in its state folder marks that the first fold has begun. This
fold never ends, so that a test can kill the agent at that point. Started again, it folds.
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

BEGUN = "began-to-fold"


class SlowFolder:
    def __init__(self, inner: Trainer, begun: Path) -> None:
        self._inner, self._begun = inner, begun

    def train(
        self, work: AssignedWork, received: Received, update: Path, callbacks: Callbacks
    ) -> Outcome:
        return self._inner.train(work, received, update, callbacks)

    def evaluate(self, work: AssignedWork, weights: Path, callbacks: Callbacks) -> Outcome:
        return self._inner.evaluate(work, weights, callbacks)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, callbacks: Callbacks
    ) -> Outcome:
        if not self._begun.exists():
            self._begun.write_text(work.assignment)
            time.sleep(3600)
        return self._inner.fold(work, updates, update, callbacks)


def make_trainer(settings: AgentSettings, profile: dict[str, Any]) -> Trainer:
    return SlowFolder(real_trainer(settings, profile), settings.state_dir / BEGUN)


if __name__ == "__main__":
    sys.exit(main(trainer="tests.stack.slow_folder:make_trainer"))
