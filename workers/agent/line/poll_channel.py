"""A device's line by POST and long poll, where no WebSocket comes through.

Each poll numbers its frames from 1, and is answered once the site has applied them. While nothing
is to be sent, one poll waits for the site's frames on a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from msgspec import Raw

from fedcore.errors import ServerRefused, ServerUnavailable, Stopped
from fedcore.formats.line_bodies import (
    POLL_ANSWER,
    DownBody,
    DownKind,
    Envelope,
    PollAnswer,
    PollRequest,
    UpKind,
)
from fedcore.formats.line_messages import (
    MAX_MESSAGE_BYTES,
    POLL_S,
    Message,
    MessageError,
    body_of,
    encode,
    read,
)
from workers.agent.agent_errors import Busy, Obstructed, Revoked
from workers.agent.http.byte_counts import Traffic
from workers.agent.http.server_api import ServerApi
from workers.agent.http.verdicts import intercepted
from workers.agent.line.channel_choice import Channel, ChannelChoice
from workers.agent.line.contract import Ending, LineEnded, LineParts
from workers.agent.line.offers import assignment_of
from workers.agent.line.opening import LineConnection, LineSite, open_line
from workers.agent.line.site_messages import SiteMessages
from workers.agent.line.unacknowledged import Frame

SHORTEST_WAIT_S = 3.0  # of a poll, where something on the way allows no longer one
PATIENCE_S = 40.0  # for an answer, beside the time that the site may wait
PAUSE_S = 1.0  # after an answer that came too early and told nothing
MAX_FRAMES = 100
MAX_REQUEST_BYTES = 2 * MAX_MESSAGE_BYTES  # of frames; a hello and the offers come on top
MAX_QUEUED = 1000
MAX_FAILURES = 2  # waiting polls in a row
HELLO_AGAIN, MALFORMED = 409, 400


class Upgraded(LineEnded):
    """A WebSocket has come through and takes the line over."""

    def __init__(self, connection: LineConnection) -> None:
        super().__init__("the line goes on as a WebSocket")
        self.connection = connection


class PollChannel:
    """``choice`` says when a WebSocket is to be tried again."""

    kind = Channel.POLL

    def __init__(self, parts: LineParts, site: LineSite, choice: ChannelChoice) -> None:
        self._parts, self._site, self._choice = parts, site, choice
        self._sending = ServerApi(site.address, traffic=parts.traffic)
        self._waiting = ServerApi(site.address, traffic=Traffic())  # no round trips
        self._line = 0
        self._offered: dict[UUID, None] = {}  # by this line, in their order
        self._news = asyncio.Event()
        self._closing = False
        self._poll: asyncio.Future[PollAnswer] | None = None  # the one that waits
        self._poll_began = self._poll_at = 0.0
        self._wait_s, self._failures = POLL_S, 0
        self._upgrade: asyncio.Task[LineConnection] | None = None

    async def hold(self) -> LineEnded:
        try:
            await self._send_frames()
            await self._exchange()
            return LineEnded("the agent stops")
        except LineEnded as end:
            return end
        except Stopped:
            return LineEnded("the agent stops")
        except Revoked:
            raise
        except ServerRefused as refusal:
            if refusal.status == HELLO_AGAIN:
                return LineEnded(str(refusal))
            if refusal.status == MALFORMED:  # by its oldest frame; others may be fine
                detail = body_of({"detail": str(refusal)})
                self._parts.frames.reject_oldest(Message(re=1, status=MALFORMED, body=detail))
            return LineEnded(str(refusal), ending=Ending.REFUSED)
        except Busy as error:
            return LineEnded(str(error), error.after_s, Ending.REFUSED)
        except ServerUnavailable as error:
            return LineEnded(str(error), ending=Ending.CUT)
        finally:
            await self._end()

    def send_frame(self, frame: Frame) -> None:
        """It goes with the next poll."""
        self._news.set()

    async def close(self) -> None:
        self._closing = True
        self._news.set()

    async def _end(self) -> None:
        """Give up what is running: threads see it within a tenth of a second."""
        self._closing = True
        if self._upgrade is not None:
            self._upgrade.cancel()
        running = [item for item in (self._poll, self._upgrade) if item is not None]
        for result in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(result, LineConnection):
                result.transport.abort()
        self._sending.close()
        self._waiting.close()

    async def _exchange(self) -> None:
        """Keep one poll waiting; send frames as they come; try a WebSocket when it is due."""
        while not self._closing:
            if len(self._parts.frames):
                await self._send_frames()
            now = time.monotonic()
            if self._poll is None and now >= self._poll_at:
                self._poll, self._poll_began = self._start(self._waiting, [], self._wait_s), now
            if self._upgrade is None and not self._choice.websocket_in_s:
                self._upgrade = asyncio.create_task(open_line(self._site))
            # Wait until something has come, there is a frame to send, or something is due.
            timeout_s = self._choice.websocket_in_s if self._upgrade is None else PATIENCE_S
            if self._poll is None:
                timeout_s = min(timeout_s, self._poll_at - now)
            news = asyncio.create_task(self._news.wait())
            waits = {item for item in (news, self._poll, self._upgrade) if item is not None}
            try:
                await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            self._news.clear()
            self._take_poll()
            self._take_upgrade()

    def _take_poll(self) -> None:
        """Act on the answer to the waiting poll.

        One that was cut is made shorter: something on the way may not wait for so long.
        """
        if self._poll is None or not self._poll.done():
            return
        poll, self._poll = self._poll, None
        messages: list[Raw] = []
        try:
            answer = poll.result()
            messages, self._failures = answer.messages, 0
            self._read(answer, hello=False)
        except ServerUnavailable:
            self._failures += 1
            if self._failures > MAX_FAILURES:
                raise
            self._wait_s = max(SHORTEST_WAIT_S, self._wait_s / 2)
        now = time.monotonic()
        early = not messages and now - self._poll_began < self._wait_s / 2
        self._poll_at = now + PAUSE_S if early else 0.0

    def _take_upgrade(self) -> None:
        """Raises Upgraded where a WebSocket has opened."""
        if self._upgrade is None or not self._upgrade.done():
            return
        upgrade, self._upgrade = self._upgrade, None
        self._choice.postpone()
        try:
            connection = upgrade.result()
        except Obstructed as error:
            self._choice.obstructed(error.certain)
        except (ServerUnavailable, Revoked):  # the polls will tell
            return
        else:
            raise Upgraded(connection)

    async def _send_frames(self) -> None:
        """Send what is not acknowledged; the first time with the hello."""
        hello = not self._line
        frames = self._parts.frames.renumber(first=2 if hello else 1)
        messages: list[Raw] = []
        if hello:
            first = Message(n=1, kind=UpKind.HELLO.value, body=self._parts.hello)
            messages.append(Raw(encode(first)))
        size = 0
        for frame in frames[: MAX_FRAMES - len(messages)]:
            data = encode(frame.message)
            size += len(data)
            if size > MAX_REQUEST_BYTES:
                break
            frame.sent_at = time.monotonic()
            messages.append(Raw(data))
        answer = await self._start(self._sending, messages, 0.0)
        self._line = answer.line
        self._read(answer, hello)
        if any(frame.n <= len(messages) and not frame.answer.done() for frame in frames):
            raise LineEnded("the site left a message unanswered")

    def _start(
        self, api: ServerApi, messages: Sequence[Raw], wait_s: float
    ) -> asyncio.Future[PollAnswer]:
        """Poll in a thread."""
        request = PollRequest(
            self._line, self._parts.boot_id, list(self._offered), wait_s, list(messages)
        )
        poll = partial(self._call, api, bytes(body_of(request)), wait_s)
        return asyncio.get_running_loop().run_in_executor(None, poll)

    def _call(self, api: ServerApi, body: bytes, wait_s: float) -> PollAnswer:
        try:
            return read(Raw(api.poll(body, self._check, wait_s + PATIENCE_S)), POLL_ANSWER)
        except MessageError as error:
            raise intercepted(200, "polls") from error

    def _check(self) -> None:
        if self._closing:
            raise Stopped("the line ends")

    def _read(self, answer: PollAnswer, hello: bool) -> None:
        messages = SiteMessages(self._parts, hello, self._note_offer)
        for raw in answer.messages:
            messages.read(bytes(raw))
        if not messages.are_greeted:
            raise LineEnded("the site did not answer the hello")

    def _note_offer(self, kind: DownKind, body: DownBody) -> None:
        """The site need not offer it again on this line."""
        if kind is not DownKind.OFFER or not isinstance(body, Envelope):
            return
        with contextlib.suppress(ValueError):
            self._offered[UUID(assignment_of(body))] = None
        while len(self._offered) > MAX_QUEUED:
            del self._offered[next(iter(self._offered))]
