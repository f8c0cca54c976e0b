"""Posts samples and presence for as long as the agent runs, at the interval the server sets."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fedcore.errors import ServerRefused, ServerUnavailable
from workers.agent.agent_errors import Busy, Revoked
from workers.agent.http.retry import delays
from workers.agent.http.server_api import ServerApi
from workers.agent.state.outbox import Outbox, OutboxSample
from workers.agent.state.shared_state import IDLE, SharedState

BATCH = 500
SHORTEST_S, LONGEST_S = 0.2, 120.0
CONTACT_NOTE_S = 5.0
RTT_NOTE = "rtt_s"
CLOCK_NOTE = "clock_offset_s"  # how far the server's clock is ahead of this agent's
MALFORMED = frozenset({400, 413, 422})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loss:
    """An assignment whose training process died."""

    assignment: str
    reason: str


class Sender(threading.Thread):
    """Sends samples until they are acknowledged; ``on_revoked`` gets the server's reason."""

    def __init__(
        self,
        server: ServerApi,
        outbox: Outbox,
        shared_state: SharedState,
        boot_id: str,
        on_revoked: Callable[[str], None],
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self._server, self._outbox, self._shared_state = server, outbox, shared_state
        self._boot_id = boot_id
        self._on_revoked = on_revoked
        self._wake = threading.Event()
        self._over = threading.Event()
        self._losses: queue.SimpleQueue[Loss] = queue.SimpleQueue()
        self._interval_s = 1.0
        self._limit = BATCH
        self._backoff: Iterator[float] | None = None
        self._contact_at = 0.0
        self._clock_offset = ""

    def set_interval(self, interval_s: float) -> None:
        self._interval_s = min(max(interval_s, SHORTEST_S), LONGEST_S)

    def hurry(self) -> None:
        """Post now: there is news for the server. During a backoff nothing changes."""
        if self._backoff is None:
            self._wake.set()

    def report_loss(self, loss: Loss) -> None:
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
        """Post once; returns the seconds until the next turn."""
        try:
            while not self._losses.empty():
                loss = self._losses.get()
                try:
                    self._server.fail(loss.assignment, loss.reason, retryable=True)
                except Revoked:
                    raise
                except ServerRefused as refusal:
                    log.info("assignment %s is over: %s", loss.assignment[:8], refusal)
                except ServerUnavailable:
                    self._losses.put(loss)
                    raise
            wait_s = self._post()
        except Revoked as error:
            self._over.set()
            self._on_revoked(str(error))
            return 0.0
        except (ServerUnavailable, ServerRefused, sqlite3.Error) as error:
            if self._backoff is None:
                log.warning("measurements stay on this device for now: %s", error)
                self._backoff = delays()
            after_s = error.after_s if isinstance(error, Busy) else 0.0
            return max(next(self._backoff), after_s)
        if self._backoff is not None:
            log.info("the server is back")
        self._backoff = None
        return wait_s

    def _post(self) -> float:
        samples = self._outbox.oldest(self._limit)
        activity = self._shared_state.activity()
        body: dict[str, Any] = {
            "boot_id": self._boot_id,
            "sent_at": self._server.clock.iso(),
            "activity": activity.to_json() if activity else IDLE,
            "samples": [sample.to_json() for sample in samples],
        }
        try:
            answer = self._server.measurements(body)
        except ServerRefused as refusal:
            if refusal.status not in MALFORMED or not samples:
                raise
            if len(samples) > 1:  # halve the batch until the refused sample is alone
                self._limit = len(samples) // 2
                return 0.0
            log.error("the server refused sample %d, dropping it: %s", samples[0].seq, refusal)
            self._outbox.drop(samples[0].seq)
            return 0.0
        self._process_answer(answer, samples)
        more = len(samples) == self._limit
        self._limit = min(BATCH, 2 * self._limit)
        return 0.0 if more else self._interval_s

    def _process_answer(self, answer: dict[str, Any], samples: list[OutboxSample]) -> None:
        acked = answer.get("acked_seq")
        if samples and isinstance(acked, int):
            self._outbox.acknowledge(min(acked, samples[-1].seq))
        interval_s = answer.get("interval_s")
        if isinstance(interval_s, (int, float)):
            self.set_interval(float(interval_s))
        mark_cancelled(answer, self._shared_state)
        offset = repr(self._server.clock.offset_s)
        if offset != self._clock_offset:
            self._clock_offset = offset
            self._shared_state.write_note(CLOCK_NOTE, offset)
        if time.monotonic() - self._contact_at > CONTACT_NOTE_S:
            self._contact_at = time.monotonic()
            self._shared_state.write_note("last_contact", self._server.clock.iso())
            self._shared_state.write_note(RTT_NOTE, repr(self._server.traffic.rtt_s or 0.0))


def mark_cancelled(answer: dict[str, Any], shared_state: SharedState) -> None:
    """Mark the assignments that the server's answer cancels."""
    for item in answer.get("cancel") or []:
        if isinstance(item, dict) and item.get("assignment"):
            reason = str(item.get("reason") or "cancelled by the server")
            if shared_state.cancel(str(item["assignment"]), reason):
                log.info("assignment %s is cancelled: %s", str(item["assignment"])[:8], reason)
