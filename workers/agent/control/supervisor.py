"""Supervises the training process from the agent's main process.

Kills a training process that ignores a cancellation, reports one that died, and stops the whole
agent within seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from workers.agent.control.oom_kills import oom_kills
from workers.agent.line.line_api import FailureReport
from workers.agent.state.shared_state import ACCEPTING, Activity, SharedState

TICK_S = 0.2
IDLE_TICK_S = 0.05
CANCEL_GRACE_S = 1.5  # after a cancellation; then the process is killed
CHILD_GRACE_S = 1.5  # after a stop of the agent
AGENT_GRACE_S = 2.6

log = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Whether and why the agent must end. A signal handler sets it: plain assignments only."""

    requested: bool = False
    exit_code: int = 0
    reason: str = ""

    def request(self, exit_code: int, reason: str) -> None:
        if not self.requested:
            self.exit_code, self.reason, self.requested = exit_code, reason, True


class Supervisor(threading.Thread):
    """Polls the shared state; ``hurry`` makes the sender send at once.

    ``end_main`` is called when the agent stops, before its processes are killed.
    """

    def __init__(
        self,
        shared_state: SharedState,
        stop: StopRequest,
        hurry: Callable[[], None],
        report_loss: Callable[[FailureReport], None],
        end_main: Callable[[], object],
    ) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._shared_state, self._stop_request = shared_state, stop
        self._hurry, self._report_loss, self._end_main = hurry, report_loss, end_main
        self._last_flush = ""
        self._last_phase = ("", "")  # assignment, phase
        self._oom_kills = oom_kills()  # before the current assignment

    def run(self) -> None:
        while not self._stop_request.requested:
            time.sleep(TICK_S)
            try:
                self.tick()
            except sqlite3.Error as error:
                log.warning("cannot read the state folder: %s", error)
        # Ask the training process to stop, then kill it; then end the agent in any case.
        began = time.monotonic()
        try:
            self._shared_state.write_note("stopping", self._stop_request.reason)
        except sqlite3.Error:
            log.warning("cannot ask the training process to stop; killing it")
        # Time for the training process to report that it was stopped.
        try:
            while self._shared_state.activity() and time.monotonic() < began + CHILD_GRACE_S:
                time.sleep(IDLE_TICK_S)
        except sqlite3.Error as error:
            log.warning("cannot read the state folder: %s", error)
        self._end_main()
        kill_children()  # the worker too, which keeps nothing
        time.sleep(max(0.0, began + AGENT_GRACE_S - time.monotonic()))
        os._exit(self._stop_request.exit_code)

    def tick(self) -> None:
        flush = self._shared_state.read_note("flush")
        if flush != self._last_flush:
            self._last_flush = flush
            self._hurry()
        activity = self._shared_state.activity()
        if activity is None:
            if self._last_phase[0]:
                self._last_phase, self._oom_kills = ("", ""), oom_kills()
            return
        phase = (activity.assignment, activity.phase)
        if phase != self._last_phase and activity.phase != ACCEPTING:
            self._last_phase = phase
            self._hurry()
        cancellation = self._shared_state.cancelled(activity.assignment)
        if not is_alive(activity.pid):
            if self._shared_state.end_activity(activity.assignment) and not cancellation:
                self._report_loss(self._loss_of(activity))
        elif cancellation and cancellation.age_s > CANCEL_GRACE_S:
            log.warning("the training did not stop in time; killing its process")
            kill(activity.pid)

    def _loss_of(self, activity: Activity) -> FailureReport:
        """Why the training process died. The kernel counts those that it kills for memory."""
        key, where = activity.assignment, f"while {activity.phase}, step {activity.step}"
        earlier, self._oom_kills = self._oom_kills, oom_kills()
        if self._oom_kills > earlier:
            reason = f"the system killed the training process for lack of memory {where}"
            at_once = self._shared_state.examples_at_once(key)
            report = FailureReport(key, reason, False, out_of_memory=True, micro_batch=at_once)
        else:
            reason = f"the training process ended unexpectedly {where}"
            report = FailureReport(key, f"{reason}; perhaps the device ran out of memory", True)
        log.error("assignment %s: %s", key[:8], report.reason)
        return report


def kill_children() -> None:
    for child in psutil.Process().children(recursive=True):
        kill(child.pid)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
