"""A proxy of the tests' own that stands between a device and its site, as a hospital's does."""

from __future__ import annotations

import contextlib
import socket
import threading

REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 24\r\n"
    b"Connection: close\r\n\r\n<html>not allowed</html>"
)


class ObstacleProxy:
    """Forwards TCP. What it does to WebSockets can change at any time.

    ``refuses``: answers upgrades itself. ``swallows``: lets no frame through. ``cuts_after_s``:
    ends each WebSocket then. ``is_cut``: takes no connection at all.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.refuses = self.swallows = self.is_cut = False
        self.cuts_after_s: float | None = None
        self.upgrades = 0
        self.polls = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut_all(self) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65_536)
                if not data or self.is_cut:
                    return
                head += data
            is_upgrade = b"upgrade: websocket" in head.lower()
            self.upgrades += is_upgrade
            self.polls += head.startswith(b"POST /api/v1/device/line/")
            if is_upgrade and self.refuses:
                client.sendall(REFUSAL)
                return
            with socket.create_connection(("127.0.0.1", self.target_port)) as onward:
                self._open.append(onward)
                onward.sendall(head)
                self._forward(client, onward, is_upgrade)

    def _forward(self, client: socket.socket, onward: socket.socket, is_upgrade: bool) -> None:
        if is_upgrade and self.cuts_after_s is not None:
            threading.Timer(self.cuts_after_s, self._cut, [client]).start()
        back = threading.Thread(target=self._pump, args=(onward, client, is_upgrade, True))
        back.daemon = True
        back.start()
        self._pump(client, onward, is_upgrade, False)
        back.join()

    def _pump(
        self, source: socket.socket, target: socket.socket, is_upgrade: bool, is_answer: bool
    ) -> None:
        """The answer to the upgrade itself passes also where frames do not."""
        passes_head = is_answer
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_upgrade and self.swallows:
                    head, end, _ = data.partition(b"\r\n\r\n")
                    data = head + end if passes_head else b""
                passes_head = False
                target.sendall(data)
        self._cut(target)

    @staticmethod
    def _cut(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
