"""The agent with a stub trainer: ``python -m tests.agent.stub_agent run ...``.

The job's name says what the trainer does, as ``key=value`` words: steps, pause (seconds a step),
stubborn (does not look whether it is to stop), fail (data, crash, memory, hog), bytes (of the
update), at_once (examples trained at a time).
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcore.errors import DataError, Stopped
from workers.agent.agent_settings import AgentSettings
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, CannotDo, Outcome, Received
from workers.agent.cli import main
from workers.agent.control import health


class StubTrainer:
    def train(
        self, work: AssignedWork, received: Received, update: Path, callbacks: Callbacks
    ) -> Outcome:
        wishes = wishes_of(work)
        if at_once := wishes.get("at_once"):
            callbacks.sized(int(at_once))
        self._run(work, callbacks)
        data = received.weights.read_bytes()[: int(wishes.get("bytes", 1000))]
        update.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        return Outcome(12, {"loss": 1.5, "steps": 3, "meta": work.update_meta}, (digest, len(data)))

    def evaluate(self, work: AssignedWork, weights: Path, callbacks: Callbacks) -> Outcome:
        self._run(work, callbacks)
        return Outcome(5, {"loss": 1.0, "rougeL": 30.0})

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, callbacks: Callbacks
    ) -> Outcome:
        raise CannotDo("a stub folds nothing")

    def _run(self, work: AssignedWork, callbacks: Callbacks) -> None:
        wishes = wishes_of(work)
        fail(wishes.get("fail", ""))
        steps = int(wishes.get("steps", 3))
        for step in range(1, steps + 1):
            if callbacks.should_stop() and "stubborn" not in wishes:
                raise Stopped("asked to stop")
            time.sleep(float(wishes.get("pause", 0.05)))
            callbacks.advance(step, steps)
            callbacks.record({"step": step, "loss": 2.0 / step, "mfu": float("nan")})


def wishes_of(work: AssignedWork) -> dict[str, str]:
    return {word.partition("=")[0]: word.partition("=")[2] for word in work.job_name.split()}


def fail(how: str) -> None:
    if how == "data":
        raise DataError("law.jsonl is empty; give a file with examples")
    if how == "cannot":
        raise CannotDo("this device has no dataset 'law'")
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "memory":
        raise MemoryError
    if how == "hog":
        memory = [b"x" * 2**20 for _ in range(1000)]
        raise AssertionError(f"{len(memory)} MB were there")


def make_trainer(settings: AgentSettings, profile: dict[str, Any]) -> StubTrainer:
    return StubTrainer()


if __name__ == "__main__":
    health.CHECK_S = float(os.environ.get("STUB_CHECK_S", health.CHECK_S))
    sys.exit(main(trainer="tests.agent.stub_agent:make_trainer"))
