"""Sends samples and activity for as long as the agent runs, at the interval the server sets."""

from __future__ import annotations

import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedcore.errors import ServerRefused, ServerUnavailable
from fedcore.formats.line_bodies import MAX_SAMPLES
from workers.agent.agent_errors import Busy
from workers.agent.http.retry import LONGEST_ON_LINE_S, delays
from workers.agent.line.line_api import FailureReport, LineApi
from workers.agent.state.outbox import Outbox, OutboxSample
from workers.agent.state.shared_state import ACCEPTING, IDLE, SharedState

BATCH = MAX_SAMPLES
BATCH_BYTES = 48_000  # of the samples in a message
SHORTEST_S, LONGEST_S = 0.2, 120.0
RTT_NOTE = "rtt_s"
CLOCK_NOTE = "clock_epoch_s"  # see ``Clock.epoch_s``
MALFORMED = frozenset({400, 413, 422})

log = logging.getLogger(__name__)


class Sender(threading.Thread):
    """Sends samples until they are acknowledged; ``on_contact`` runs after each message."""

    def __init__(
        self,
        line: LineApi,
        outbox: Outbox,
        shared_state: SharedState,
        on_contact: Callable[[], None],
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self._line, self._outbox, self._shared_state = line, outbox, shared_state
        self._on_contact = on_contact
        self._wake = threading.Event()
        self._over = threading.Event()
        self._losses: queue.SimpleQueue[FailureReport] = queue.SimpleQueue()
        self._interval_s = 1.0
        self._limit = BATCH
        self._backoff: Iterator[float] | None = None
        self._last_activity: dict[str, Any] = IDLE

    def set_interval(self, interval_s: float) -> None:
        """A shorter interval takes effect at once."""
        shorter = interval_s < self._interval_s
        self._interval_s = min(max(interval_s, SHORTEST_S), LONGEST_S)
        if shorter:
            self.hurry()

    def hurry(self) -> None:
        """Send now: there is news for the server. During a backoff nothing changes."""
        if self._backoff is None:
            self._wake.set()

    def resume(self) -> None:
        """Send now: the line is open again."""
        self._wake.set()

    def report_loss(self, loss: FailureReport) -> None:
        """The training process of an assignment died."""
        self._losses.put(loss)
        self._wake.set()

    def stop(self) -> None:
        self._over.set()
        self._wake.set()

    def run(self) -> None:
        wait_s = 0.0
        while not self._over.is_set():
            self._wake.wait(wait_s)
            self._wake.clear()
            if not self._over.is_set():
                wait_s = self.turn()

    def turn(self) -> float:
        """Send once; returns the seconds until the next turn."""
        try:
            while not self._losses.empty():
                loss = self._losses.get()
                try:
                    self._line.fail(loss)
                except ServerRefused as refusal:
                    log.info("assignment %s is over: %s", loss.assignment[:8], refusal)
                except ServerUnavailable:
                    self._losses.put(loss)
                    raise
            wait_s = self._send()
        except (ServerUnavailable, ServerRefused, sqlite3.Error) as error:
            if self._backoff is None:
                log.warning("measurements stay on this device for now: %s", error)
                self._backoff = delays(longest_s=LONGEST_ON_LINE_S)
            after_s = error.after_s if isinstance(error, Busy) else 0.0
            return max(next(self._backoff), after_s)
        if self._backoff is not None:
            log.info("measurements arrive again")
        self._backoff = None
        return wait_s

    def _send(self) -> float:
        stored = self._outbox.oldest(self._limit)
        samples, limit = fitting(stored), self._limit
        current = self._shared_state.activity()
        activity = current.to_json() if current and current.phase != ACCEPTING else IDLE
        if not samples and activity == self._last_activity == IDLE:
            return self._interval_s  # the open line is presence enough
        body = {"activity": activity, "samples": [sample.to_json() for sample in samples]}
        try:
            answer = self._line.measurements(body)
        except ServerRefused as refusal:
            if refusal.status not in MALFORMED or not samples:
                raise
            # Halve the batch until the refused sample is alone, then drop it.
            if len(samples) > 1:
                self._limit = len(samples) // 2
            else:
                log.error("the server refused sample %d, dropping it: %s", samples[0].seq, refusal)
                self._outbox.drop(samples[0].seq)
            return 0.0
        self._last_activity = activity
        if "interval_s" in answer:
            self.set_interval(float(answer["interval_s"]))
        if samples:
            self._outbox.acknowledge(samples[-1].seq)
        self._on_contact()
        self._limit = min(BATCH, 2 * self._limit)
        more = len(samples) < len(stored) or len(stored) == limit
        return 0.0 if more else self._interval_s


def fitting(samples: Sequence[OutboxSample]) -> list[OutboxSample]:
    """The first samples that fit in one message; at least one of them."""
    batch: list[OutboxSample] = []
    size = 0
    for sample in samples:
        size += len(json.dumps(sample.to_json()))
        if batch and size > BATCH_BYTES:
            break
        batch.append(sample)
    return batch
