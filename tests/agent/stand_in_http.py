"""The HTTP of the stand-in's site: enrolment, bytes, and the upgrade of a device's line."""

from __future__ import annotations

import hashlib
import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from fedcore.formats.line_messages import PATH, POLL_PATH
from fedcore.formats.verdicts import (
    NONCE_HEADER,
    VERDICT_HEADER,
    SiteVerdict,
    body_of,
    digest,
    request_name,
    to_header,
)
from tests.agent.stand_in_line import Refusal, StandInLine

if TYPE_CHECKING:
    from tests.agent.stand_in import StandIn

API_TOKEN = "device-token"
ASSIGNMENT = re.compile(r"/api/v1/device/assignments/([0-9a-f-]{36})/")
UPDATE = re.compile(r"/api/v1/device/assignments/([0-9a-f-]{36})/update/([0-9a-f]{64})/")


class StandInHttp(ThreadingHTTPServer):
    """One port for HTTP and WebSocket, as on the real site; with TLS if the site has it."""

    daemon_threads = True

    def __init__(self, port: int, state: StandIn) -> None:
        self.state = state
        super().__init__(("127.0.0.1", port), Handler)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.state.tls:
            connection = self.state.tls.wrap_socket(connection, server_side=True)
        return connection, address

    def handle_error(self, *_: Any) -> None:
        """Devices that hang up are part of these tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandInHttp

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, status: int, values: dict[str, Any], **headers: str) -> None:
        bare = status == 204 or self.command == "HEAD"
        data = b"" if bare else json.dumps(values).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status >= 300:
            self.send_header(VERDICT_HEADER, self._verdict(status))
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _verdict(self, status: int) -> str:
        token = (self.headers.get("Authorization") or "").removeprefix("Device ")
        nonce = self.headers.get(NONCE_HEADER) or ""
        request = request_name(self.command, self.path)
        body = body_of(SiteVerdict(digest(token), request, nonce, status))
        return to_header(body, self.server.state.signature_of(body))

    def _guarded(self, call: Any) -> None:
        state = self.server.state
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if state.away:  # a connection that outlived the stop
            self.close_connection = True
            return
        if "/enrol/" not in self.path and (
            state.revoked or self.headers.get("Authorization") != f"Device {API_TOKEN}"
        ):
            detail = "this device's credential was revoked"
            self._answer(401, {"status": 401, "detail": detail})
            return
        try:
            status, values = call(data)
        except Refusal as refusal:
            status, values = refusal.status, {"detail": str(refusal), "status": refusal.status}
        self._answer(status, values)

    def do_POST(self) -> None:
        self._guarded(self._poll if self.path == POLL_PATH else self._locked_post)

    def _locked_post(self, data: bytes) -> tuple[int, dict[str, Any]]:
        with self.server.state.lock:
            return self._post(data)

    def _poll(self, data: bytes) -> tuple[int, dict[str, Any]]:
        return 200, self.server.state.poll(json.loads(data))

    def _post(self, data: bytes) -> tuple[int, dict[str, Any]]:
        state, body = self.server.state, json.loads(data or b"{}")
        plain = {
            "/api/v1/enrol/": lambda: state.enrol(body),
            "/api/v1/device/unenrol/": state.unenrol,
        }
        return plain[self.path]()

    def _is_intercepted(self) -> bool:
        """Whether something on the way has answered."""
        answers = self.server.state.foreign.get(self.command)
        if not answers:
            return False
        self.close_connection = True
        self._respond(*answers.pop(0))
        return True

    def _respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Neither a problem document nor signed, unless the test says so."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        if self._is_intercepted():
            return
        state, match = self.server.state, UPDATE.fullmatch(self.path)
        assert match, self.path
        with state.lock:
            state.uploads.append("HEAD")
            offset = len(state.offers[match[1]].part)
        self._answer(200, {}, Upload_Offset=str(offset))

    def do_PATCH(self) -> None:
        if self._is_intercepted():
            return
        state, match = self.server.state, UPDATE.fullmatch(self.path)
        assert match and self.headers["Content-Type"] == "application/offset+octet-stream"
        offset, count = int(self.headers["Upload-Offset"]), int(self.headers["Content-Length"])
        state.uploads.append(f"PATCH {offset}")
        try:
            with state.lock:
                offered = state.upload_of(match[1])
        except Refusal as refusal:
            self.close_connection = True
            self._answer(refusal.status, {"detail": str(refusal)}, Connection="close")
            return
        if offset != len(offered.part):
            self.close_connection = True
            self._answer(409, {}, Upload_Offset=str(len(offered.part)), Connection="close")
            return
        if state.cut_uploads_at:
            offered.part += self.rfile.read(state.cut_uploads_at.pop(0))
            self.close_connection = True
            return
        offered.part += self.rfile.read(count)
        if hashlib.sha256(offered.part).hexdigest() != match[2]:
            self._answer(422, {"detail": "the bytes are not what the hash says"})
            return
        offered.update = offered.part
        self._answer(204, {}, Upload_Offset=str(len(offered.part)))

    def _upgrade(self) -> None:
        state = self.server.state
        state.upgrades.append(time.monotonic())
        self.close_connection = True
        if state.away:
            return
        if state.refusals or state.upgrade_refusal:
            self._respond(*(state.refusals or [state.upgrade_refusal]).pop(0))
        elif state.revoked or self.headers.get("Authorization") != f"Device {API_TOKEN}":
            detail = "this device's credential was revoked"
            self._answer(401, {"status": 401, "detail": detail})
        else:
            state.serve_line(StandInLine(self.connection, self.path, self.headers))

    def do_GET(self) -> None:
        state = self.server.state
        if self.path == PATH:
            self._upgrade()
            return
        if self._is_intercepted():
            return
        if match := ASSIGNMENT.fullmatch(self.path):
            state.fetched_assignments.append(match[1])
            self._answer(200, state.work(state.offers[match[1]]))
            return
        data = state.artefact(self.path.rstrip("/").rsplit("/", 1)[1])
        range_header = self.headers.get("Range")
        state.downloads.append(range_header or "")
        start = int(range_header.removeprefix("bytes=").rstrip("-")) if range_header else 0
        if start >= len(data):
            self._answer(416, {})
            return
        self.send_response(206 if range_header else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if state.cut_downloads_at:
            self.wfile.write(data[start : state.cut_downloads_at.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(data[start:])
