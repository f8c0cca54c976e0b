"""The training process: opens envelopes, runs the assignments, keeps the trainer between them.

It is the Celery worker's one forked child. Its parent (``control.supervisor``) notices when it
dies.
"""

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
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Trainer
from workers.agent.assignment.failure import Failure, failure_of
from workers.agent.assignment.runner import AssignmentRunner, Dependencies
from workers.agent.control.gatekeeper import Gatekeeper
from workers.agent.http.retry import keep_trying
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.socket import no_check
from workers.agent.power.account import energy_of
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.recorder import AssignmentRecorder
from workers.agent.telemetry.sender import RTT_NOTE

POLL_S = 0.1
ORPHAN_CHECK_S = 0.5
REPORT_FAILURE_S = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessContext:
    """What the parent prepares for the forked child: no torch, no open files or connections."""

    address: Address
    boot_id: str
    outbox: Outbox
    shared_state: SharedState
    gatekeeper: Gatekeeper
    state_dir: Path
    profile: Mapping[str, Any]
    make_trainer: Callable[[], Trainer]
    clock_offset_s: Callable[[], float]


class CancelToken:
    """Whether one assignment must stop; read from the store at most ten times a second."""

    def __init__(self, shared_state: SharedState, assignment: str) -> None:
        self._shared_state = shared_state
        self._assignment = assignment
        self._next_poll = 0.0
        self.cancelled = ""
        self.stopping = ""

    def should_stop(self) -> bool:
        now = time.monotonic()
        if now >= self._next_poll and not (self.cancelled or self.stopping):
            self._next_poll = now + POLL_S
            mark = self._shared_state.cancelled(self._assignment)
            self.cancelled = (mark.reason or "no reason given") if mark else ""
            self.stopping = self._shared_state.read_note("stopping")
        return bool(self.cancelled or self.stopping)

    def check(self) -> None:
        if self.should_stop():
            raise Stopped(self.cancelled or self.stopping)


class TrainingProcess:
    """Created once per training process, after the fork."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._server = ServerApi(context.address)
        self._cache = ArtefactCache(context.state_dir / "artefacts")
        self._updates = context.state_dir / "updates"
        self._updates.mkdir(exist_ok=True)
        self._feedback = context.state_dir / error_feedback.FOLDER
        self._private = context.state_dir / private_folders.FOLDER
        self._trainer: Trainer | None = None
        threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()

    def handle(self, envelope: Any) -> None:
        """Run the assignment that an envelope offers. Nothing is raised, everything is logged."""
        context, server = self._context, self._server
        server.clock.offset_s = context.clock_offset_s()
        # The parent makes more small calls, so it knows the round-trip time better.
        server.traffic.answered(float(context.shared_state.read_note(RTT_NOTE) or 0.0))
        try:
            message = context.gatekeeper.admit(envelope, "work")
        except EnvelopeRefused as refusal:
            log.warning("refused an offer: %s", refusal)
            return
        assignment = message.assignment
        token = CancelToken(context.shared_state, assignment)
        until = time.monotonic() + message.expires_at - server.clock.now()
        try:
            accept = partial(server.accept, assignment, context.boot_id)
            values = keep_trying(accept, until, token.check, "accepting")
        except (ServerRefused, ServerUnavailable, Stopped) as error:
            log.info("assignment %s was not accepted: %s", assignment[:8], error)
            return
        energy = energy_of(context.profile)
        with AssignmentRecorder(
            context.outbox,
            context.shared_state,
            server.traffic,
            server.clock.iso,
            assignment,
            energy,
        ) as recorder:
            try:
                self._perform(values, recorder, token)
            except Exception as error:  # whatever it is, the server must learn of it
                self._report_failure(assignment, error, recorder.activity.step, token)

    def _perform(
        self, values: Mapping[str, Any], recorder: AssignmentRecorder, token: CancelToken
    ) -> None:
        try:
            work = AssignedWork.read(values)
        except SpecError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise EdgewiseError(
                f"this agent does not understand the assignment ({error!r}); update it"
            ) from error
        error_feedback.remove_finished_jobs(self._feedback, work.wire)
        private_folders.remove_finished_jobs(self._private, work.wire)
        log.info("starting to %s in round %d of %r", work.task, work.round, work.job_name)
        if self._trainer is None:
            self._trainer = self._context.make_trainer()
        dependencies = Dependencies(
            self._server,
            self._cache,
            self._trainer,
            recorder,
            self._updates,
            token.check,
            token.should_stop,
        )
        metrics = AssignmentRunner(work, dependencies).perform().metrics
        error_feedback.remove_after_last_round(self._feedback, work)
        scores = [
            f"{key} {metrics[key]:.3f}" for key in ("loss", "rougeL", "mfu") if key in metrics
        ]
        log.info("reported %s of round %d: %s", work.task, work.round, ", ".join(scores) or "done")

    def _report_failure(
        self, assignment: str, error: Exception, step: int, token: CancelToken
    ) -> None:
        """Report why the assignment ended; nothing where the server ended it."""
        if isinstance(error, Stopped):
            if token.cancelled:
                log.info("assignment %s was cancelled: %s", assignment[:8], token.cancelled)
                return
            self._send_failure(assignment, Failure(token.stopping, True), None, 0.0, no_check)
            return
        failure = failure_of(error)
        if failure is None:
            log.info("assignment %s is over: %s", assignment[:8], error)
            return
        unexpected = not isinstance(error, (EdgewiseError, OSError))
        verb = "refused" if failure.refuse else "failed"
        log.error("assignment %s %s: %s", assignment[:8], verb, failure.reason, exc_info=unexpected)
        self._send_failure(assignment, failure, step, REPORT_FAILURE_S, token.check)

    def _send_failure(
        self,
        assignment: str,
        failure: Failure,
        step: int | None,
        within_s: float,
        check: Callable[[], None],
    ) -> None:
        def send() -> None:
            if failure.refuse:
                self._server.refuse(assignment, failure.reason)
            else:
                self._server.fail(assignment, failure.reason, failure.retryable, step)

        try:
            keep_trying(send, time.monotonic() + within_s, check, "reporting the failure")
        except EdgewiseError as error:
            log.info("the server did not accept the failure report: %s", error)


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent is gone; Linux does so by itself, others do not."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)
