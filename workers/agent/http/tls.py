"""TLS over a Wire. The bytes pass through this process, so that those of TLS itself are counted."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from workers.agent.http.socket import CountingSocket

READ_AT_ONCE = 1 << 18
RECORDS = 1 << 18  # bytes encrypted at once; what is encrypted must be sent


class Tls:
    """Sends and receives as a Wire does. After a TimeoutError the same call goes on."""

    def __init__(self, wire: CountingSocket, context: ssl.SSLContext, name: str) -> None:
        self._wire = wire
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._raw = memoryview(bytearray(READ_AT_ONCE))
        self._unsent = memoryview(b"")
        self._early = b""

    def shake_hands(self) -> None:
        """Raises ssl.SSLError where the other side is not who it should be."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # tells why
                raise
            else:
                self._flush()
                return

    def send(self, data: memoryview) -> int:
        self._flush()
        taken = self._tls.write(data[:RECORDS])
        with contextlib.suppress(TimeoutError):  # the rest goes before anything else does
            self._flush()
        return taken

    def recv_into(self, buffer: Any) -> int:
        """How many bytes came; 0 at the end of the stream."""
        if self._early:
            early, self._early = self._early, b""
            buffer[: len(early)] = early
            return len(early)
        into, got = memoryview(buffer), 0
        while got < len(into):
            with contextlib.suppress(OSError):  # a server that takes no more may still answer
                self._flush()
            try:
                count: Any = self._tls.read(len(into) - got, into[got:])
            except ssl.SSLWantReadError:
                if got:
                    break
                self._feed()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                count = 0
            if not count:  # the end of the stream; most builds of OpenSSL report it this way
                break
            got += int(count)
        return got

    def has_news(self) -> bool:
        """Bytes are tried, not the socket: TLS has messages of its own that are no news."""
        while not self._early:
            try:
                self._early = self._tls.read(1)
            except ssl.SSLWantReadError:
                if not self._wire.has_news():
                    return False
                try:
                    self._feed()
                except OSError:
                    return True
            except ssl.SSLError:
                return True
            else:
                return True
        return True

    def _feed(self) -> None:
        self._wire.check()  # bytes may come one by one for as long as the other side likes
        if got := self._wire.recv_into(self._raw):
            self._in.write(self._raw[:got])
        else:
            self._in.write_eof()

    def _flush(self) -> None:
        while self._unsent or self._out.pending:
            self._unsent = self._unsent or memoryview(self._out.read())
            self._unsent = self._unsent[self._wire.send(self._unsent) :]
