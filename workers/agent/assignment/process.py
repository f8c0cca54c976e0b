"""The training process: takes envelopes, does the assignments, keeps the trainer between them."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedcore.errors import (
    EdgewiseError,
    ServerRefused,
    ServerUnavailable,
    SpecError,
    Stopped,
)
from workers.agent.agent_errors import EnvelopeRefused
from workers.agent.assignment import error_feedback, private_folders
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.assignment.assignment import (
    AssignedWork,
    AssignmentRunner,
    Dependencies,
    Trainer,
)
from workers.agent.assignment.failure import Failure, failure_of
from workers.agent.control.gatekeeper import Gatekeeper
from workers.agent.http.retry import keep_trying
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.power.account import energy_of
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.recorder import AssignmentRecorder
from workers.agent.telemetry.sender import RTT_NOTE

POLL_S = 0.1
ORPHAN_CHECK_S = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessContext:
    """What the parent prepares and a forked child works with; no torch in it, nothing open."""

    address: Address
    boot_id: str
    outbox: Outbox
    board: SharedState
    gatekeeper: Gatekeeper
    state_dir: Path
    profile: Mapping[str, Any]
    make_trainer: Callable[[], Trainer]
    clock_offset_s: Callable[[], float]


class CancelToken:
    """Whether one assignment is to stop, asked for at every step and read ten times a second."""

    def __init__(self, board: SharedState, assignment: str) -> None:
        self._board = board
        self._assignment = assignment
        self._next = 0.0
        self.cancelled = ""
        self.stopping = ""

    def should_stop(self) -> bool:
        now = time.monotonic()
        if now >= self._next and not (self.cancelled or self.stopping):
            self._next = now + POLL_S
            mark = self._board.cancelled(self._assignment)
            self.cancelled = (mark.reason or "no reason given") if mark else ""
            self.stopping = self._board.noted("stopping")
        return bool(self.cancelled or self.stopping)

    def check(self) -> None:
        if self.should_stop():
            raise Stopped(self.cancelled or self.stopping)


class TrainingProcess:
    """One per training process, made after the fork."""

    def __init__(self, kit: ProcessContext) -> None:
        self._kit = kit
        self._server = ServerApi(kit.address)
        self._cache = ArtefactCache(kit.state_dir / "artefacts")
        self._updates = kit.state_dir / "updates"
        self._updates.mkdir(exist_ok=True)
        self._feedback = kit.state_dir / error_feedback.FOLDER
        self._private = kit.state_dir / private_folders.FOLDER
        self._trainer: Trainer | None = None
        threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()

    def handle(self, envelope: Any) -> None:
        """Do what an envelope offers; nothing is raised, everything is logged."""
        self._server.clock.offset_s = self._kit.clock_offset_s()
        # The agent's other process makes more small calls, and so knows the way better.
        self._server.traffic.answered(float(self._kit.board.noted(RTT_NOTE) or 0.0))
        try:
            message = self._kit.gatekeeper.admit(envelope, "work")
        except EnvelopeRefused as refusal:
            log.warning("an offer was refused: %s", refusal)
            return
        sign = CancelToken(self._kit.board, message.assignment)
        offered_s = message.expires_at - self._server.clock.now()
        values = self._accept(message.assignment, sign, offered_s)
        if values is not None:
            self._answer(message.assignment, values, sign)

    def _accept(
        self, assignment: str, sign: CancelToken, offered_s: float
    ) -> Mapping[str, Any] | None:
        accept = partial(self._server.accept, assignment, self._kit.boot_id)
        try:
            return keep_trying(accept, time.monotonic() + offered_s, sign.check, "accepting")
        except (ServerRefused, ServerUnavailable, Stopped) as error:
            log.info("assignment %s is not taken: %s", assignment[:8], error)
            return None

    def _answer(self, assignment: str, values: Mapping[str, Any], sign: CancelToken) -> None:
        kit = self._kit
        server = self._server
        recorder = AssignmentRecorder(
            kit.outbox,
            kit.board,
            server.traffic,
            server.clock.iso,
            assignment,
            energy_of(kit.profile),
        )
        with recorder:
            try:
                self._perform(values, recorder, sign)
            except Stopped:
                self._stopped(assignment, sign)
            except Exception as error:  # whatever it is, the server hears of it
                self._failed(assignment, error, recorder.activity.step, sign)

    def _perform(
        self, values: Mapping[str, Any], recorder: AssignmentRecorder, sign: CancelToken
    ) -> None:
        work = _read(values)
        error_feedback.tidy(self._feedback, work.wire)
        private_folders.tidy(self._private, work.wire)
        log.info("%s of round %d of %r begins", work.task, work.round, work.job_name)
        if self._trainer is None:
            self._trainer = self._kit.make_trainer()
        tools = Dependencies(
            self._server,
            self._cache,
            self._trainer,
            recorder,
            self._updates,
            sign.check,
            sign.should_stop,
        )
        performance = AssignmentRunner(work, tools)
        outcome = performance.perform()
        error_feedback.forget_when_done(self._feedback, work)
        log.info("%s of round %d is reported: %s", work.task, work.round, _brief(outcome.metrics))

    def _stopped(self, assignment: str, sign: CancelToken) -> None:
        if sign.cancelled:
            log.info("assignment %s was cancelled: %s", assignment[:8], sign.cancelled)
            return
        failure = Failure(sign.stopping, True)
        self._tell(assignment, failure, None, within_s=0.0, check=lambda: None)

    def _failed(self, assignment: str, error: Exception, step: int, sign: CancelToken) -> None:
        failure = failure_of(error)
        if failure is None:
            log.info("assignment %s is over: %s", assignment[:8], error)
            return
        unexpected = not isinstance(error, (EdgewiseError, OSError))
        verb = "refused" if failure.refuse else "failed"
        log.error("assignment %s %s: %s", assignment[:8], verb, failure.reason, exc_info=unexpected)
        self._tell(assignment, failure, step, within_s=600.0, check=sign.check)

    def _tell(
        self,
        assignment: str,
        failure: Failure,
        step: int | None,
        within_s: float,
        check: Callable[[], None],
    ) -> None:
        def tell() -> None:
            if failure.refuse:
                self._server.refuse(assignment, failure.reason)
            else:
                self._server.fail(assignment, failure.reason, failure.retryable, step)

        try:
            keep_trying(tell, time.monotonic() + within_s, check, "telling of the failure")
        except EdgewiseError as error:
            log.info("the server did not take that: %s", error)


def _read(values: Mapping[str, Any]) -> AssignedWork:
    try:
        return AssignedWork.read(values)
    except SpecError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise EdgewiseError(
            f"this agent does not understand the work ({error!r}); update it"
        ) from error


def _brief(metrics: Mapping[str, Any]) -> str:
    shown = [f"{name} {metrics[name]:.3f}" for name in ("loss", "rougeL", "mfu") if name in metrics]
    return ", ".join(shown) or "done"


def _die_with(parent: int) -> None:
    """End this process when its parent is gone; Linux does so by itself, others do not."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)
