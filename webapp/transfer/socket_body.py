"""Direct use of uvicorn's socket: bytes move between disk and network without ASGI messages.

ASGI has no message that reads a body into a file, and uvicorn supports none that sends a file. So
this uses the socket below uvicorn's request cycle; uvicorn still handles heads, responses and the
end of the connection. With another server, or TLS in the server, ``uvicorn_cycle`` returns None and
callers use ASGI messages.

A thread runs only while bytes move; the event loop waits for a slow peer.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

from webapp.transfer.asgi_tools import run_in_thread

MODULE = "uvicorn.protocols.http.httptools_impl"
MIN_BYTES = 4 * 2**20  # below this, ASGI messages are cheaper
BURST_BYTES = 32 * 2**20  # per turn in the thread pool
PIECE_BYTES = 2**19  # fits in a core's cache between socket, hash and disk
POLL_MS = 10
STALLED_S = 120.0

Write = Callable[[memoryview], None]


def uvicorn_cycle(channel: object) -> Any | None:
    """uvicorn's request cycle behind ``receive`` or ``send``; None if there is none."""
    cycle = getattr(channel, "__self__", None)
    known = getattr(sys.modules.get(MODULE), "RequestResponseCycle", None)
    if known is None or not isinstance(cycle, known):
        return None
    if cycle.transport.get_extra_info("sslcontext") is not None or cycle.transport.is_closing():
        return None
    return cycle


class SocketReader:
    """Reads a request's body of ``length`` bytes from its socket.

    The connection cannot serve another request afterwards: respond with Connection: close.
    """

    def __init__(self, cycle: Any, length: int) -> None:
        cycle.flow.pause_reading()
        self._early = bytes(cycle.body)
        cycle.body.clear()
        self._remaining = length - len(self._early)
        self._socket = _copy_of(cycle)
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self.is_cut = False  # the client closed before the end

    @property
    def is_read(self) -> bool:
        return self._remaining == 0 and not self._early

    async def move(self, write: Write, within_s: float) -> int:
        """Pass received bytes to ``write``, in a thread; returns their number, 0 on timeout."""
        if self._early:
            early, self._early = self._early, b""
            await run_in_thread(write, memoryview(early))
            return len(early)
        if not await _ready(self._socket, False, within_s):
            return 0
        return await run_in_thread(self._burst, write)

    def _burst(self, write: Write) -> int:
        moved = 0
        while self._remaining and moved < BURST_BYTES:
            try:
                got = self._socket.recv_into(self._buffer, min(self._remaining, PIECE_BYTES))
            except BlockingIOError:
                if _poll(self._socket, select.POLLIN):
                    continue
                break
            except ConnectionError:
                got = 0
            if not got:
                self.is_cut = True
                break
            write(self._buffer[:got])
            self._remaining -= got
            moved += got
        return moved

    def close(self) -> None:
        self._socket.close()


async def send_file(cycle: Any, handle: int, start: int, stop: int) -> None:
    """Send bytes [start, stop) of an open file as the response's body, by sendfile.

    Raises ConnectionError where the client disconnected or reads nothing for STALLED_S.
    """
    await asyncio.sleep(0)
    while cycle.transport.get_write_buffer_size():  # the head is sent first
        await asyncio.sleep(0.001)
    try:
        with _copy_of(cycle) as out:
            while start < stop:
                if not await _ready(out, True, STALLED_S):
                    raise ConnectionAbortedError("the client reads nothing")
                start += await run_in_thread(_send_burst, out, handle, start, stop)
    except ConnectionError:
        cycle.transport.abort()
        await asyncio.sleep(0)  # uvicorn must see the abort before it checks the response
        raise
    cycle.expected_content_length = 0


def _send_burst(out: socket.socket, handle: int, start: int, stop: int) -> int:
    sent = 0
    while start + sent < stop and sent < BURST_BYTES:
        try:
            went = os.sendfile(out.fileno(), handle, start + sent, stop - start - sent)
        except BlockingIOError:
            if _poll(out, select.POLLOUT):
                continue
            break
        if not went:
            raise ConnectionAbortedError("the file is shorter than its row says")
        sent += went
    return sent


def _copy_of(cycle: Any) -> socket.socket:
    """The socket with a duplicate descriptor: uvicorn may close its own meanwhile."""
    number = os.dup(cycle.transport.get_extra_info("socket").fileno())
    copy = socket.socket(fileno=number)
    copy.setblocking(False)
    return copy


def _poll(sock: socket.socket, what: int) -> bool:
    poll = select.poll()
    poll.register(sock, what)
    return bool(poll.poll(POLL_MS))


async def _ready(sock: socket.socket, writing: bool, within_s: float) -> bool:
    """Whether bytes can move within this time."""
    loop = asyncio.get_running_loop()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    ready = asyncio.Event()
    add(sock.fileno(), ready.set)
    try:
        await asyncio.wait_for(ready.wait(), within_s)
    except asyncio.TimeoutError:
        return False
    finally:
        remove(sock.fileno())
    return True
