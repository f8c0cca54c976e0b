"""The training process: opens envelopes, runs the assignments, keeps the trainer between them.

It is the Celery worker's one forked child. The agent's main process (``control.supervisor``)
notices when it dies.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fedcore.errors import (
    EdgewiseError,
    ServerRefused,
    ServerUnavailable,
    SpecError,
    Stopped,
)
from workers.agent.agent_errors import EnvelopeRefused
from workers.agent.agent_settings import AgentSettings
from workers.agent.assignment import error_feedback, private_folders
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Trainer
from workers.agent.assignment.failure import Failure, failure_of
from workers.agent.assignment.runner import AssignmentRunner, Dependencies
from workers.agent.http.retry import LONGEST_ON_LINE_S, keep_trying
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.socket import no_check
from workers.agent.http.throttle import LinkThrottle
from workers.agent.line.gatekeeper import Gatekeeper, SignedMessage
from workers.agent.line.line_api import FailureReport, LineApi
from workers.agent.line.site_call import Caller
from workers.agent.power.account import energy_of
from workers.agent.state.credentials import DeviceCredential
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import ACCEPTING, Activity, SharedState
from workers.agent.state.site_key import SiteKey
from workers.agent.telemetry.recorder import AssignmentRecorder
from workers.agent.telemetry.sender import CLOCK_NOTE, RTT_NOTE

POLL_S = 0.1
ORPHAN_CHECK_S = 0.5
REPORT_FAILURE_S = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProcessContext:
    """What the training process works with. ``line`` leads to the agent's main process."""

    credential: DeviceCredential
    settings: AgentSettings
    throttle: LinkThrottle | None
    line: Caller
    outbox: Outbox
    shared_state: SharedState
    profile: Mapping[str, Any]
    make_trainer: Callable[[], Trainer]

    def address(self, key: SiteKey) -> Address:
        credential = self.credential
        return Address(
            credential.server, credential.api_token, self.settings.ca_file, self.throttle, key
        )


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
        credential, state_dir = context.credential, context.settings.state_dir
        key = SiteKey(credential.public_key, state_dir)
        self._server = ServerApi(context.address(key))
        self._line = LineApi(context.line, self._server.assignment)
        self._gatekeeper = Gatekeeper(
            credential.device_id,
            key,
            context.shared_state,
            self._server.clock.now,
        )
        self._cache = ArtefactCache(context.settings.artefacts)
        self._updates = state_dir / "updates"
        self._feedback = state_dir / error_feedback.FOLDER
        self._private = state_dir / private_folders.FOLDER
        self._trainer: Trainer | None = None
        threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()

    def handle(self, envelope: Any) -> None:
        """Run the assignment that an envelope offers. Nothing is raised, everything is logged."""
        context, server = self._context, self._server
        # The main process has the line, so it knows the server's clock and the round trip.
        if epoch_s := context.shared_state.read_note(CLOCK_NOTE):
            server.clock.epoch_s = float(epoch_s)
        server.traffic.answered(float(context.shared_state.read_note(RTT_NOTE) or 0.0))
        self._updates.mkdir(exist_ok=True)
        try:
            message = self._gatekeeper.open(envelope, "work")
        except EnvelopeRefused as refusal:
            log.warning("refused an offer: %s", refusal)
            return
        assignment = message.assignment
        token = CancelToken(context.shared_state, assignment)
        try:  # so that the supervisor reports a process that dies as soon as it has accepted
            context.shared_state.set_activity(Activity(assignment, ACCEPTING, 0, 0, os.getpid()))
        except sqlite3.Error as error:
            log.warning("cannot store the activity: %s", error)
        values = self._accept(message, token)
        if values is None:
            context.shared_state.end_activity(assignment)
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

    def _accept(self, message: SignedMessage, token: CancelToken) -> dict[str, Any] | None:
        """The description of the work; None where it cannot be accepted."""
        until = time.monotonic() + message.expires_at - self._server.clock.now()
        accept = partial(self._line.accept, message.assignment, token.check)
        try:
            values = keep_trying(
                accept, until, token.check, "accepting", longest_s=LONGEST_ON_LINE_S
            )
        except (ServerUnavailable, Stopped) as error:
            log.info("assignment %s was not accepted: %s", message.assignment[:8], error)
            return None
        except ServerRefused as error:
            self._gatekeeper.close(message)
            log.info("assignment %s was not accepted: %s", message.assignment[:8], error)
            return None
        self._gatekeeper.close(message)
        return values

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
            self._line,
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
        if failure.out_of_memory:
            self._trainer = None  # with the model that it holds
        unexpected = not isinstance(error, (EdgewiseError, OSError)) and not failure.out_of_memory
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
        at_once = self._context.shared_state.examples_at_once(assignment)
        report = FailureReport(
            assignment, failure.reason, failure.retryable, step, failure.out_of_memory, at_once
        )

        def send() -> None:
            if failure.refuse:
                self._line.refuse(assignment, failure.reason, check)
            else:
                self._line.fail(report, check)

        until = time.monotonic() + within_s
        try:
            keep_trying(send, until, check, "reporting the failure", longest_s=LONGEST_ON_LINE_S)
        except EdgewiseError as error:
            log.info("the server did not accept the failure report: %s", error)


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent is gone; Linux does so by itself, others do not."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os._exit(1)
