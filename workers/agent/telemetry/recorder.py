"""Samples of one assignment: training metrics, and the processes' resource usage."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]

from workers.agent.http.byte_counts import Counted, Traffic
from workers.agent.power.account import AssignmentEnergy
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import Activity, SharedState

POWER_POLL_S = 0.5
QUIET_S = 1.5  # after this long without a training sample, record resource usage alone

log = logging.getLogger(__name__)


class ProcessMeter:
    """Memory and CPU of the training process, the worker and the agent's main, together."""

    def __init__(self) -> None:
        training = psutil.Process()
        self._processes = [training, *training.parents()[:2]]
        for process in self._processes:
            process.cpu_percent()

    def read(self) -> dict[str, float]:
        memory = cpu = 0.0
        for process in self._processes:
            try:
                memory += process.memory_info().rss
                cpu += process.cpu_percent()
            except psutil.Error:
                continue
        return {"memory_bytes": memory, "cpu_percent": cpu}


class NetMeter:
    """Bytes since the last reading, and their rate."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._counted, self._at = Counted(traffic), time.monotonic()

    def read(self) -> dict[str, float]:
        values, now = self._counted.values(), time.monotonic()
        seconds = max(now - self._at, 1e-3)
        self._counted, self._at = Counted(self._traffic), now
        rates = {
            "net_up_bps": values["net_up_bytes"] / seconds,
            "net_down_bps": values["net_down_bytes"] / seconds,
        }
        return {**values, **rates}


class AssignmentRecorder:
    """Records an assignment's samples and activity while its ``with`` block runs."""

    def __init__(
        self,
        outbox: Outbox,
        shared_state: SharedState,
        traffic: Traffic,
        iso_now: Callable[[], str],
        assignment: str,
        energy: AssignmentEnergy | None = None,
    ) -> None:
        self._outbox, self._shared_state, self._iso_now = outbox, shared_state, iso_now
        self._processes, self._net = ProcessMeter(), NetMeter(traffic)
        self.energy = energy or AssignmentEnergy()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._last_sample = time.monotonic()
        self._thread = threading.Thread(target=self._fill_gaps, name="samples", daemon=True)
        self.activity = Activity(assignment, "accepted", 0, 0, os.getpid())

    def __enter__(self) -> AssignmentRecorder:
        self._publish()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.energy.poll()
        self.record({})
        self._shared_state.end_activity(self.activity.assignment)

    def enter(self, phase: str) -> None:
        """Start another phase of the assignment."""
        self.energy.enter(phase)
        self._set_activity(phase, self.activity.step, self.activity.steps_total)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Energy used in this block counts as waiting for an absent server."""
        self.energy.enter("waiting")
        try:
            yield
        finally:
            self.energy.enter(self.activity.phase)

    def advance(self, step: int, steps_total: int) -> None:
        self._set_activity(self.activity.phase, step, steps_total)

    def note_examples_at_once(self, examples: int) -> None:
        """What to halve if this process runs out of memory."""
        try:
            self._shared_state.note_examples_at_once(self.activity.assignment, examples)
        except sqlite3.Error as error:
            log.warning("cannot store the size of the batches: %s", error)

    def _set_activity(self, phase: str, step: int, steps_total: int) -> None:
        self.activity = Activity(self.activity.assignment, phase, step, steps_total, os.getpid())
        self._publish()

    def _publish(self) -> None:
        try:
            self._shared_state.set_activity(self.activity)
        except sqlite3.Error as error:
            log.warning("cannot store the activity: %s", error)

    def record(self, values: Mapping[str, float]) -> None:
        """Store a sample. A full disk loses samples, never the training."""
        with self._lock:
            self._last_sample = time.monotonic()
            usage = {**self._processes.read(), **self._net.read(), **self.energy.sample()}
            sample = {**values, **usage}
            try:
                self._outbox.add(self._iso_now(), self.activity.assignment, sample)
            except sqlite3.Error as error:
                log.warning("lost a sample: %s", error)

    def _fill_gaps(self) -> None:
        while not self._ended.wait(POWER_POLL_S):
            self.energy.poll()
            if time.monotonic() - self._last_sample >= QUIET_S:
                self.record({})
