"""Watches over the training process from its parent: ends one that does not stop, notices one that
died, and brings the whole agent down within seconds when it is told to stop."""

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

from workers.agent.state.shared_state import Activity, SharedState
from workers.agent.telemetry.sender import Loss

TICK_S = 0.2
STOP_WITHIN_S = 3.0  # of a cancellation; then the process is killed
CHILD_GRACE_S = 1.5  # of a stop of the agent
AGENT_GRACE_S = 2.6

log = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Whether and why the agent is to end. A signal handler may set it: plain assignments only."""

    wanted: bool = False
    exit_code: int = 0
    reason: str = ""

    def request(self, exit_code: int, reason: str) -> None:
        if not self.wanted:
            self.exit_code, self.reason, self.wanted = exit_code, reason, True


class Warden(threading.Thread):
    def __init__(
        self,
        board: SharedState,
        stop: StopRequest,
        hurry: Callable[[], None],
        tell_of_loss: Callable[[Loss], None],
        stop_worker: Callable[[], None],
    ) -> None:
        super().__init__(name="warden", daemon=True)
        self._board, self._request = board, stop
        self._hurry, self._tell_of_loss, self._stop_worker = hurry, tell_of_loss, stop_worker
        self._flushed = ""
        self._told = ("", "")

    def run(self) -> None:
        while not self._request.wanted:
            time.sleep(TICK_S)
            try:
                self.tick()
            except sqlite3.Error as error:
                log.warning("the state folder cannot be read: %s", error)
        self._wind_up()

    def tick(self) -> None:
        flush = self._board.noted("flush")
        if flush != self._flushed:
            self._flushed = flush
            self._hurry()
        activity = self._board.activity()
        if activity is None:
            return
        self._show(activity)
        cancelled = self._board.cancelled(activity.assignment)
        if not is_alive(activity.pid):
            self._lost(activity, bool(cancelled))
        elif cancelled and cancelled.age_s > STOP_WITHIN_S:
            log.warning("the training did not stop in time; its process is ended")
            kill(activity.pid)

    def _show(self, activity: Activity) -> None:
        """What the device does now is news: the next measurements are not waited for."""
        does = (activity.assignment, activity.phase)
        if does != self._told:
            self._told = does
            self._hurry()

    def _lost(self, activity: Activity, cancelled: bool) -> None:
        if not self._board.end_activity(activity.assignment) or cancelled:
            return
        reason = (
            f"the training process ended unexpectedly while {activity.phase}, step "
            f"{activity.step}; perhaps the device ran out of memory"
        )
        log.error("assignment %s: %s", activity.assignment[:8], reason)
        self._tell_of_loss(Loss(activity.assignment, reason))

    def _wind_up(self) -> None:
        """The training process may stop by itself, then is killed; then the agent ends anyway."""
        began = time.monotonic()
        try:
            self._board.note("stopping", self._request.reason)
        except sqlite3.Error:
            log.warning("the training process cannot be asked to stop; it is ended")
        self._stop_worker()
        time.sleep(CHILD_GRACE_S)
        end_children()
        time.sleep(max(0.0, began + AGENT_GRACE_S - time.monotonic()))
        os._exit(self._request.exit_code)


def end_children() -> None:
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
