"""A small site for transfers, which can cut, stall, redirect and refuse them."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.formats.verdicts import (
    NONCE_HEADER,
    VERDICT_HEADER,
    SiteVerdict,
    body_of,
    digest,
    request_name,
    to_header,
)
from workers.agent.assignment.artefact_cache import ArtefactCache
from workers.agent.http.server_api import ServerApi

CONTENT = os.urandom(3 * 2**20 + 77)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site(ThreadingHTTPServer):
    """Serves CONTENT, accepts updates, and counts connections."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.content = CONTENT
        self.heard: list[str] = []
        self.tokens: list[str | None] = []
        self.connections = 0
        self.redirect = ""
        self.cut_at = 0
        self.stall_at = 0
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.signed: list[tuple[int, Ed25519PrivateKey]] = []  # refusals with a verdict
        self.part = b""
        self.tls = tls
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        self.connections += 1
        if self.tls:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are part of these tests."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def respond(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, key: Ed25519PrivateKey) -> None:
        body = body_of(
            SiteVerdict(
                digest((self.headers["Authorization"] or "").removeprefix("Device ")),
                request_name(self.command, self.path),
                self.headers[NONCE_HEADER],
                status,
            )
        )
        headers = {VERDICT_HEADER: to_header(body, key.sign(body)), "Connection": "close"}
        self.respond(status, headers, b'{"detail": "no"}')
        self.close_connection = True

    def hear(self) -> bool:
        """Note the request; answer as scripted, if it is. Whether it was."""
        site = self.server
        site.heard.append(f"{self.command} {self.path}")
        site.tokens.append(self.headers.get("Authorization"))
        if site.signed:
            self.refuse(*site.signed.pop(0))
            return True
        if not site.answers:
            return False
        status, headers, body = site.answers.pop(0)
        self.respond(status, headers, body)
        self.close_connection = headers.get("Connection") == "close"
        return True

    def do_GET(self) -> None:
        site = self.server
        if self.hear():
            return
        if "/assignments/" in self.path:
            self.respond(200, {}, b"{}")
            return
        if site.redirect:
            self.respond(307, {"Location": site.redirect})
            return
        range_header = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        body = site.content[int(range_header[1]) :] if range_header else site.content
        self.send_response(206 if range_header else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut_at, site.cut_at = site.cut_at, 0
        if site.stall_at:
            self.wfile.write(body[: site.stall_at])
            time.sleep(30)
        self.wfile.write(body[:cut_at] if cut_at else body)
        self.close_connection = bool(cut_at)

    def do_HEAD(self) -> None:
        if not self.hear():
            self.respond(200, {"Upload-Offset": str(len(self.server.part))})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if not self.hear():
            self.respond(200, {}, b"{}")

    def do_PATCH(self) -> None:
        if self.hear():
            return
        offset, count = int(self.headers["Upload-Offset"]), int(self.headers["Content-Length"])
        assert offset == len(self.server.part)
        self.server.part += self.rfile.read(count)
        self.respond(204, {"Upload-Offset": str(len(self.server.part))})


def go_on() -> None:
    """A check that never cancels."""


def fetch(server: ServerApi, cache: ArtefactCache, check: Callable[[], None] = go_on) -> Path:
    return cache.fetch(server, SHA256, len(CONTENT), check)
