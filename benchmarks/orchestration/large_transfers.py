"""A virtual device's assignments whose model or update is too large for a message."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.orchestration.echo import EchoTrainer
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.runner import AssignmentRunner, Dependencies
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.socket import no_check
from workers.agent.line.device_line import Line
from workers.agent.line.line_api import LineApi
from workers.agent.line.site_call import LoopCaller
from workers.agent.power.account import AssignmentEnergy
from workers.agent.state.credentials import DeviceCredential


class SilentRecorder:
    """The recorder of a device that measures nothing."""

    def __init__(self) -> None:
        self.energy = AssignmentEnergy()

    def enter(self, phase: str) -> None:
        del phase

    @contextmanager
    def waiting(self) -> Iterator[None]:
        yield

    def advance(self, step: int, steps_total: int) -> None:
        del step, steps_total

    def record(self, values: Mapping[str, float]) -> None:
        del values

    def note_examples_at_once(self, examples: int) -> None:
        del examples


class LargeTransfers:
    """Does one device's assignments by the agent's own code. Use it from one thread at a time."""

    def __init__(
        self,
        credential: DeviceCredential,
        line: Line,
        loop: asyncio.AbstractEventLoop,
        folder: Path,
    ) -> None:
        self._server = ServerApi(Address(credential.server, credential.api_token))
        self._line = LineApi(LoopCaller(line, loop), self._server.assignment)
        self._cache = ArtefactCache(folder / credential.name)
        self._updates = folder / "updates"
        self._updates.mkdir(exist_ok=True)

    def perform(self, values: Mapping[str, Any], trainer: EchoTrainer) -> None:
        """Raises EdgewiseError."""
        dependencies = Dependencies(
            self._server,
            self._line,
            self._cache,
            trainer,
            SilentRecorder(),  # type: ignore[arg-type]
            self._updates,
            no_check,
            lambda: False,
        )
        AssignmentRunner(AssignedWork.read(values), dependencies).perform()
