"""What the agent's main process does with the frames of the site."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime, timezone

from fedcore.formats.line_bodies import DownBody, DownKind, Envelope, HelloAnswer, Interval, Notice
from workers.agent.agent_errors import EnvelopeRefused, UnknownKey
from workers.agent.http.server_clock import Clock
from workers.agent.line.channel_choice import Channel
from workers.agent.line.contract import LineState
from workers.agent.line.device_line import Line
from workers.agent.line.gatekeeper import Gatekeeper
from workers.agent.line.offers import Offers, values_of
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import CONTACT_NOTE, LINE_NOTE, SharedState
from workers.agent.state.site_key import SiteKey
from workers.agent.telemetry.sender import CLOCK_NOTE, RTT_NOTE, Sender

CONTACT_NOTE_S = 5.0
MAX_UNKNOWN_KEYS = 20

log = logging.getLogger(__name__)


class SiteFrames:
    """The handlers of the device's line (``LineHandlers``). They run in the line's loop."""

    def __init__(
        self,
        offers: Offers,
        gatekeeper: Gatekeeper,
        site_key: SiteKey,
        shared_state: SharedState,
        outbox: Outbox,
        clock: Clock,
    ) -> None:
        self._offers, self._gatekeeper, self._site_key = offers, gatekeeper, site_key
        self._shared_state, self._outbox, self._clock = shared_state, outbox, clock
        self._contact_at = 0.0
        self._logged_problem = self._logged_channel = ""
        self._unknown_keys: set[str] = set()
        self._next_sample_seq = 1
        self.sender: Sender | None = None
        self.on_greeted: Callable[[], None] = lambda: None
        self.first_greeting = asyncio.Event()

    def greeted(self, answer: HelloAnswer) -> None:
        if self._site_key.follow(answer.successions):
            log.info("the server signs with a new key, for which its old one vouches")
        self._clock.observe_time(answer.time.timestamp())
        self._next_sample_seq = answer.next_sample_seq
        try:
            self.store_greeting()
        except sqlite3.Error as error:  # the site learns of it by the line that this one opens
            log.error("cannot store what the server said: %s", error)
        if self.sender is not None:
            self.sender.set_interval(answer.interval_s)
            self.sender.resume()
        self.first_greeting.set()
        self.on_greeted()

    def store_greeting(self) -> None:
        """What the training process needs of the last hello; again after the store has failed."""
        self._outbox.continue_from(self._next_sample_seq)
        self._shared_state.write_note(CLOCK_NOTE, repr(self._clock.epoch_s))
        self._shared_state.write_note(CONTACT_NOTE, self._clock.iso())

    def received(self, kind: DownKind, body: DownBody) -> None:
        """Raises UnknownKey, once for each key that this device has not heard of."""
        if isinstance(body, Envelope):
            key, known = values_of(body).get("key"), {self._site_key.name, *self._unknown_keys}
            if isinstance(key, str) and key not in known and len(known) < MAX_UNKNOWN_KEYS:
                self._unknown_keys.add(key)
                raise UnknownKey("the server signs with a key that this device does not know yet")
            if kind is DownKind.OFFER:
                self._offers.add(body)
            else:
                self._cancel(body)
        elif isinstance(body, Interval):
            if self.sender is not None:
                self.sender.set_interval(body.interval_s)
        elif isinstance(body, Notice):
            log.warning("the server says: %s", body.text)

    def _cancel(self, envelope: Envelope) -> None:
        """Mark the assignment; the training process looks at the mark ten times a second."""
        values = {"body": envelope.body, "signature": envelope.signature}
        try:
            message = self._gatekeeper.open(values, "cancel")
        except EnvelopeRefused as refusal:
            log.warning("refused a cancellation: %s", refusal)
            return
        reason = message.reason or "cancelled by the server"
        if self._shared_state.cancel(message.assignment, reason):
            log.info("assignment %s is cancelled: %s", message.assignment[:8], reason)
        self._gatekeeper.close(message)

    def connection_changed(self, line: LineState) -> None:
        since = line.connected_since
        connected_at = datetime.fromtimestamp(since, timezone.utc).isoformat() if since else ""
        channel = line.channel.value if line.channel else ""
        values = {"connected_at": connected_at, "problem": line.problem, "channel": channel}
        with contextlib.suppress(sqlite3.Error):  # for the agent's status alone
            self._shared_state.write_note(LINE_NOTE, json.dumps(values))
        if line.problem and line.problem != self._logged_problem:
            log.warning("no line to the server: %s; trying again", line.problem)
        elif since and self._logged_problem:
            log.info("the line to the server is open again")
        if channel == Channel.POLL and self._logged_channel != channel:
            log.warning("no WebSocket comes through; the line goes on by long poll")
        self._logged_channel = channel or self._logged_channel
        self._logged_problem = line.problem

    def note_contact(self, line: Line) -> None:
        """For the agent's status and the training process, at most every few seconds."""
        if time.monotonic() - self._contact_at > CONTACT_NOTE_S:
            self._contact_at = time.monotonic()
            self._shared_state.write_note(CONTACT_NOTE, self._clock.iso())
            self._shared_state.write_note(RTT_NOTE, repr(line.traffic.rtt_s or 0.0))
