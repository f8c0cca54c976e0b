"""Offers of work that this device has not finished, in the order in which they came."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedcore.formats.line_bodies import Envelope
from workers.agent.line.local_messages import Push

LONGEST_QUEUE = 100
MAX_ATTEMPTS = 5  # training processes that may die before the site has accepted

Hand = Callable[[Push], None]


@dataclass
class QueuedOffer:
    """``attempts``: how often it was handed to a worker."""

    tag: int
    assignment: str
    envelope: Envelope
    attempts: int = 0
    accepted: bool = False


class Offers:
    """Hands offers to the worker, one at a time.

    An offer whose worker or training process died before the site accepted is handed out again.
    While ``may_work`` is false all wait.
    """

    def __init__(self, may_work: Callable[[], bool] = lambda: True) -> None:
        self._may_work = may_work
        self._queue: deque[QueuedOffer] = deque()
        self._current: QueuedOffer | None = None
        self._tags = itertools.count(1)
        self._hand: Hand | None = None

    def __len__(self) -> int:
        return len(self._queue) + (self._current is not None)

    def add(self, envelope: Envelope) -> None:
        """Queue an offer. A newer one for the same assignment replaces it, and expires later."""
        assignment = assignment_of(envelope)
        for offer in self._queue:
            if assignment and offer.assignment == assignment:
                offer.envelope = envelope
                return
        if len(self._queue) < LONGEST_QUEUE:  # the site offers the others again
            self._queue.append(QueuedOffer(next(self._tags), assignment, envelope))
            self._hand_next()

    def look_again(self) -> None:
        """Hand out an offer that waits, if this device may work now."""
        self._hand_next()

    def attach(self, hand: Hand) -> None:
        """A worker takes offers from now on."""
        self.detach()
        self._hand = hand
        self._hand_next()

    def detach(self) -> None:
        """The worker is gone. What was accepted fails; the supervisor reports it."""
        self._hand = None
        self._take_back()

    def accepted(self, assignment: str) -> None:
        """The site has decided on an offer: no other process may begin it."""
        if self._current is not None and self._current.assignment == assignment:
            self._current.accepted = True

    def finished(self, tag: int) -> None:
        if self._current is not None and self._current.tag == tag:
            self._current = None
            self._hand_next()

    def again(self, tag: int) -> None:
        """The training process died with this offer."""
        if self._current is not None and self._current.tag == tag:
            self._take_back()
            self._hand_next()

    def _take_back(self) -> None:
        offer, self._current = self._current, None
        if offer is not None and not offer.accepted and offer.attempts < MAX_ATTEMPTS:
            self._queue.appendleft(offer)

    def _hand_next(self) -> None:
        free = self._hand is not None and self._current is None
        if self._hand is not None and free and self._queue and self._may_work():
            self._current = offer = self._queue.popleft()
            offer.attempts += 1
            self._hand(Push(offer.tag, offer.envelope))


def assignment_of(envelope: Envelope) -> str:
    """Only to recognise an offer: the training process checks the signature. '' if unreadable."""
    assignment = values_of(envelope).get("assignment")
    return assignment if isinstance(assignment, str) else ""


def values_of(envelope: Envelope) -> dict[str, Any]:
    """The body of an envelope whose signature was not checked; empty if it is unreadable."""
    try:
        values = json.loads(envelope.body)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
