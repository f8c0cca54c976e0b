"""TLS over a CountingSocket, so that the bytes of TLS itself are counted."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from workers.agent.http.socket import CountingSocket

READ_BYTES = 1 << 18
RECORDS_BYTES = 1 << 18  # encrypted at once; what is encrypted must be sent


class Tls:
    """Sends and receives as a CountingSocket does. After a TimeoutError, repeat the call."""

    def __init__(self, plain: CountingSocket, context: ssl.SSLContext, name: str) -> None:
        self._plain = plain
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._raw = memoryview(bytearray(READ_BYTES))
        self._unsent = memoryview(b"")
        self._early = b""

    def shake_hands(self) -> None:
        """Raises ssl.SSLError where the server cannot prove its identity."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the alert, which says why
                raise
            else:
                self._flush()
                return

    def peer_certificate(self) -> bytes:
        """DER, also of a server that has proved nothing."""
        return self._tls.getpeercert(binary_form=True) or b""

    def send(self, data: memoryview) -> int:
        self._flush()
        accepted = self._tls.write(data[:RECORDS_BYTES])
        with contextlib.suppress(TimeoutError):  # the rest is sent before anything else
            self._flush()
        return accepted

    def recv_into(self, buffer: Any) -> int:
        """Returns the number of bytes; 0 at the end of the stream."""
        if self._early:
            early, self._early = self._early, b""
            buffer[: len(early)] = early
            return len(early)
        into, total = memoryview(buffer), 0
        while total < len(into):
            with contextlib.suppress(OSError):  # a server that accepts no more may still respond
                self._flush()
            try:
                count: Any = self._tls.read(len(into) - total, into[total:])
            except ssl.SSLWantReadError:
                if total:
                    break
                self._feed()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                count = 0
            if not count:  # the end of the stream; most builds of OpenSSL report it this way
                break
            total += int(count)
        return total

    def has_news(self) -> bool:
        """Whether the server has sent data or closed; TLS's own messages do not count."""
        while not self._early:
            try:
                self._early = self._tls.read(1)
            except ssl.SSLWantReadError:
                if not self._plain.has_news():
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
        self._plain.check()  # a server may send byte by byte for as long as it likes
        if count := self._plain.recv_into(self._raw):
            self._in.write(self._raw[:count])
        else:
            self._in.write_eof()

    def _flush(self) -> None:
        while self._unsent or self._out.pending:
            self._unsent = self._unsent or memoryview(self._out.read())
            self._unsent = self._unsent[self._plain.send(self._unsent) :]
