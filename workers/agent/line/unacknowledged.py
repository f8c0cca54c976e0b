"""Frames of a device which the site has not yet acknowledged."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from fedcore.formats.line_messages import MAX_MESSAGE_BYTES, Message, MessageError

HEAD_BYTES = 200  # of a message around its body


class Frame:
    """A frame, its number on the current line, and the future of its answer."""

    __slots__ = ("answer", "body", "kind", "n", "sent_at")

    def __init__(self, kind: str, body: Raw, answer: asyncio.Future[Message]) -> None:
        self.kind, self.body, self.answer = kind, body, answer
        self.n = 0
        self.sent_at = 0.0

    @property
    def message(self) -> Message:
        return Message(n=self.n, kind=self.kind, body=self.body)


class Unacknowledged:
    """Frames in their order. Numbers begin anew on every line and with every poll."""

    def __init__(self) -> None:
        self._frames: dict[int, Frame] = {}
        self._next = 2

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, kind: str, body: Raw, answer: asyncio.Future[Message]) -> Frame:
        """Raises MessageError for a body that is larger than a message."""
        size = len(bytes(body)) + HEAD_BYTES
        if size > MAX_MESSAGE_BYTES:
            raise MessageError(f"the message has {size} bytes; the limit is {MAX_MESSAGE_BYTES}")
        # PostgreSQL stores no NUL character, and the site would close the line again and again.
        clean = Raw(bytes(body).replace(b"\\u0000", b"\\ufffd"))
        frame = Frame(kind, clean, answer)
        self._append(frame)
        return frame

    def _append(self, frame: Frame) -> None:
        frame.n = self._next
        self._frames[frame.n] = frame
        self._next += 1

    def forget(self, frame: Frame) -> None:
        """Nobody waits for the answer any more: do not send it again."""
        if self._frames.get(frame.n) is frame:
            del self._frames[frame.n]

    def renumber(self, first: int) -> list[Frame]:
        """All frames in their order, with new numbers from ``first``: 2 behind a hello."""
        frames, self._frames, self._next = list(self._frames.values()), {}, first
        for frame in frames:
            self._append(frame)
        return frames

    def answered(self, message: Message) -> Frame | None:
        """Give a frame its own answer; returns it."""
        frame = self._frames.pop(message.re or 0, None)
        return self._resolve(frame, message)

    def acknowledged(self, n: int) -> list[Frame]:
        """All frames up to ``n`` succeeded."""
        frames = [self._frames.pop(number) for number in list(self._frames) if number <= n]
        for frame in frames:
            self._resolve(frame, Message(re=frame.n))
        return frames

    def reject_oldest(self, reason: Message) -> None:
        """The site could not read the oldest frame; others may be fine."""
        for n in list(self._frames)[:1]:
            self._resolve(self._frames.pop(n), reason)

    @staticmethod
    def _resolve(frame: Frame | None, message: Message) -> Frame | None:
        if frame is not None and not frame.answer.done():
            frame.answer.set_result(message)
        return frame
