"""The socket below an exchange, where the server is uvicorn: bytes between disk and network alone.

ASGI has no message that takes a body into a file, and uvicorn has none of those that send one. So
this reaches for the socket under uvicorn's exchange; heads, answers and the connection's end stay
uvicorn's. Under another server, or one that does TLS itself, ``exchange_of`` finds nothing and the
callers use ASGI's messages.

A thread works only while bytes move: a slow other side is waited for by the event loop.
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
LEAST_BYTES = 4 * 2**20  # below this, ASGI's messages cost less than a change of hands
BURST_BYTES = 32 * 2**20  # then the others have their turn
PIECE_BYTES = 2**19  # stays in a core's cache between the socket, the hash and the disk
LOOK_AGAIN_MS = 10
STALLED_S = 120.0

Write = Callable[[memoryview], None]


def uvicorn_cycle(channel: object) -> Any | None:
    """uvicorn's exchange behind ``receive`` or ``send``; None where it is no such thing."""
    cycle = getattr(channel, "__self__", None)
    known = getattr(sys.modules.get(MODULE), "RequestResponseCycle", None)
    if known is None or not isinstance(cycle, known):
        return None
    if cycle.transport.get_extra_info("sslcontext") is not None or cycle.transport.is_closing():
        return None
    return cycle


class SocketReader:
    """The rest of a request's body, ``length`` bytes in all, read from its socket.

    The connection cannot be used for another request afterwards: answer with Connection: close.
    """

    def __init__(self, cycle: Any, length: int) -> None:
        cycle.flow.pause_reading()
        self._early = bytes(cycle.body)
        cycle.body.clear()
        self._left = length - len(self._early)
        self._socket = _copy_of(cycle)
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self.is_cut = False  # the other side closed before the end

    @property
    def is_read(self) -> bool:
        return self._left == 0 and not self._early

    async def move(self, write: Write, within_s: float) -> int:
        """Hand what has come to ``write``, which runs in a thread; 0 after ``within_s``."""
        if self._early:
            early, self._early = self._early, b""
            await run_in_thread(write, memoryview(early))
            return len(early)
        if not await _ready(self._socket, False, within_s):
            return 0
        return await run_in_thread(self._burst, write)

    def _burst(self, write: Write) -> int:
        moved = 0
        while self._left and moved < BURST_BYTES:
            try:
                got = self._socket.recv_into(self._buffer, min(self._left, PIECE_BYTES))
            except BlockingIOError:
                if _comes_soon(self._socket, select.POLLIN):
                    continue
                break
            except ConnectionError:
                got = 0
            if not got:
                self.is_cut = True
                break
            write(self._buffer[:got])
            self._left -= got
            moved += got
        return moved

    def close(self) -> None:
        self._socket.close()


async def send_file(cycle: Any, handle: int, start: int, stop: int) -> None:
    """Send bytes [start, stop) of an open file as the answer's body, after its head, by sendfile.

    Raises ConnectionError where the other side has gone or takes nothing for STALLED_S.
    """
    await asyncio.sleep(0)
    while cycle.transport.get_write_buffer_size():  # the head goes first
        await asyncio.sleep(0.001)
    try:
        with _copy_of(cycle) as out:
            await _send_all(out, handle, start, stop)
    except ConnectionError:
        cycle.transport.abort()
        await asyncio.sleep(0)  # uvicorn hears of it before it looks how the answer ended
        raise
    cycle.expected_content_length = 0


async def _send_all(out: socket.socket, handle: int, start: int, stop: int) -> None:
    while start < stop:
        if not await _ready(out, True, STALLED_S):
            raise ConnectionAbortedError("the other side takes nothing")
        start += await run_in_thread(_send_burst, out, handle, start, stop)


def _send_burst(out: socket.socket, handle: int, start: int, stop: int) -> int:
    sent = 0
    while start + sent < stop and sent < BURST_BYTES:
        try:
            went = os.sendfile(out.fileno(), handle, start + sent, stop - start - sent)
        except BlockingIOError:
            if _comes_soon(out, select.POLLOUT):
                continue
            break
        if not went:
            raise ConnectionAbortedError("the file is shorter than its row says")
        sent += went
    return sent


def _copy_of(cycle: Any) -> socket.socket:
    """The socket under a number of its own: uvicorn may close its while we use ours."""
    number = os.dup(cycle.transport.get_extra_info("socket").fileno())
    copy = socket.socket(fileno=number)
    copy.setblocking(False)
    return copy


def _comes_soon(sock: socket.socket, what: int) -> bool:
    poll = select.poll()
    poll.register(sock, what)
    return bool(poll.poll(LOOK_AGAIN_MS))


async def _ready(sock: socket.socket, writing: bool, within_s: float) -> bool:
    """Whether bytes can move within so many seconds."""
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
