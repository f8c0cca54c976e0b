"""What all lines of one web process share."""

from __future__ import annotations

import asyncio

from webapp.line.batches import Batches
from webapp.line.delivery import Delivery
from webapp.line.limits import DeviceLimits
from webapp.line.line import DeviceLine, EndLine, MessageSender
from webapp.line.open_lines import OpenLines
from webapp.line.opening import OpenedLine


class Hub:
    """The open lines of this process, its threads for the database, and the messages it hears."""

    def __init__(self) -> None:
        self.batches = Batches()
        self.lines = OpenLines(self.batches)
        self.delivery = Delivery(self.lines, self.batches)
        self._limits: dict[int, DeviceLimits] = {}
        self._background: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen, with the first line: ASGI servers differ in what they call at start."""
        if not self._background:
            jobs = (self.delivery.listen(), self.lines.keep_heartbeat())
            self._background = [asyncio.create_task(job) for job in jobs]

    def limits(self, device_id: int) -> DeviceLimits:
        return self._limits.setdefault(device_id, DeviceLimits())

    def may_open(self, device_id: int) -> bool:
        return self.limits(device_id).may_open()

    def line(
        self, opened: OpenedLine, transport: MessageSender, end: EndLine, listed: bool = True
    ) -> DeviceLine:
        """A line of this process. The caller removes it from ``lines`` at its end.

        ``listed``: whether it takes the site's frames, in place of the device's older line.
        """
        limit = self.limits(opened.device_id).frames
        line = DeviceLine(opened, transport, self.batches, limit, end)
        if listed:
            self.lines.add(line)
        return line
