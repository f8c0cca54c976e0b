"""The long poll of the stand-in's site, for devices whose WebSockets do not come through."""

from __future__ import annotations

import json
import threading
from typing import Any

from fedcore.formats.line_messages import Message, body_of, encode
from tests.agent.stand_in_line import Handle, Refusal

HELLO_AGAIN = 409


class StandInPolls:
    """One line by long poll: what ``StandInLine`` is for a WebSocket."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.polls = 0
        self.acknowledged = 0
        self.is_over = False
        self.is_deaf = False
        self._pushed: list[tuple[str, Any]] = []
        self._news = threading.Condition()

    def push(self, kind: str, body: Any) -> int:
        with self._news:
            self._pushed.append((kind, body))
            self._news.notify_all()
            return len(self._pushed)

    def cut(self) -> None:
        """The next poll is refused."""
        with self._news:
            self.is_over = True
            self._news.notify_all()

    def close(self, code: int, reason: str = "") -> None:
        self.cut()

    def poll(self, request: dict[str, Any], handle: Handle) -> dict[str, Any]:
        """The answer to one poll. Raises Refusal where the line is over."""
        self.polls += 1
        if self.is_over:
            raise Refusal(HELLO_AGAIN, "this device has a newer line; say hello again")
        messages = [self._answer(item, handle) for item in request["messages"]]
        if request["wait_s"] and not messages:
            with self._news:
                self._news.wait_for(lambda: self._pushed or self.is_over, request["wait_s"])
                pushed, self._pushed = self._pushed, []
            messages = [
                Message(n=number, kind=kind, body=body_of(body))
                for number, (kind, body) in enumerate(pushed, start=1)
            ]
        return {"line": self.number, "messages": [json.loads(encode(item)) for item in messages]}

    @staticmethod
    def _answer(item: dict[str, Any], handle: Handle) -> Message:
        try:
            answer = handle(item["kind"], item["body"])
        except Refusal as refusal:
            body = body_of({"detail": str(refusal)})
            return Message(re=item["n"], status=refusal.status, body=body)
        if answer is None:
            return Message(ack=item["n"])
        return Message(re=item["n"], body=body_of(answer))
