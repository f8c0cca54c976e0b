"""``python -m benchmarks links``: transfers over links, predicted and measured.

The agent's client uploads and downloads over loopback at the speed of each link (``--link`` of the
agent), on an open connection.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fedcore.hardware.links import LINKS, Link
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.throttle import LinkThrottle

DEFAULT = ("wifi-4", "lte", "satellite-geo")
SIZE = 1_376_256  # LoRA r = 8 on q and v of FLAN-T5-small in fp32
PIECE = 1 << 16


class _TransferSite(ThreadingHTTPServer):
    """A server with downloads of a fixed size and uploads of any size."""

    daemon_threads = True

    def __init__(self, size: int) -> None:
        self.content = os.urandom(size)
        super().__init__(("127.0.0.1", 0), _TransferHandler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _TransferHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _TransferSite

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def _respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._respond(200, {}, b"{}" if "/assignments/" in self.path else self.server.content)

    def do_PATCH(self) -> None:
        offset, remaining_bytes = (
            int(self.headers["Upload-Offset"]),
            int(self.headers["Content-Length"]),
        )
        total = offset + remaining_bytes
        while remaining_bytes and (got := self.rfile.read(min(PIECE, remaining_bytes))):
            remaining_bytes -= len(got)
        self._respond(204, {"Upload-Offset": str(total)}, b"")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--links", nargs="+", choices=sorted(LINKS), default=DEFAULT)
    parser.add_argument("--bytes", type=int, default=SIZE, help="of each transfer")


def run(args: argparse.Namespace) -> int:
    print("\n".join(rows(args.links, args.bytes)))
    return 0


def transfers(link: Link, size: int, folder: Path, repeats: int = 3) -> tuple[float, float]:
    """Median seconds to download and to upload ``size`` bytes over the emulated link."""
    site = _TransferSite(size)
    host, port = site.server_address[0], site.server_address[1]
    server = ServerApi(Address(f"http://{host!s}:{port}", "token", throttle=LinkThrottle(link)))
    file = folder / "update"
    file.write_bytes(site.content)
    try:
        server.assignment("a")  # connects, which is not part of a transfer
        down, up = [], []
        for _ in range(repeats):
            began = time.perf_counter()
            with server.download("0" * 64) as (_, body):
                buffer = memoryview(bytearray(PIECE))
                while body.readinto(buffer):
                    pass
            down.append(time.perf_counter() - began)
        for _ in range(repeats):
            began = time.perf_counter()
            server.upload("a", file, "0" * 64)
            up.append(time.perf_counter() - began)
        return statistics.median(down), statistics.median(up)
    finally:
        server.close()
        site.shutdown()
        site.server_close()


def rows(names: Sequence[str], size: int) -> list[str]:
    """A Markdown table. error = predicted / measured - 1."""
    lines = ["| link | way | predicted | measured | error |", "| --- | --- | ---: | ---: | ---: |"]
    with tempfile.TemporaryDirectory(prefix="edgewise-links-") as folder:
        for name in names:
            link = LINKS[name]
            measured = transfers(link, size, Path(folder))
            predictions = link.down_s(size), link.up_s(size)
            for way, predicted, took in zip(("down", "up"), predictions, measured, strict=True):
                error = predicted / took - 1
                lines.append(
                    f"| {name} | {way} | {predicted:.3g} s | {took:.3g} s | {error:+.1%} |"
                )
    return [*lines, "", f"{size} bytes each way, headers left out of the prediction."]
