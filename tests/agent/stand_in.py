"""A small server in a thread, for the agent's tests; it can be stopped and started on its port."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.agent.stand_in_calls import API_TOKEN, DeviceCalls, Refusal

ASSIGNMENT = re.compile(r"/api/v1/device/assignments/([0-9a-f-]{36})/(\w+)/")
UPDATE = re.compile(r"/api/v1/device/assignments/([0-9a-f-]{36})/update/([0-9a-f]{64})/")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: StandIn

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, status: int, values: dict[str, Any], **headers: str) -> None:
        bare = status == 204 or self.command == "HEAD"
        data = b"" if bare else json.dumps(values).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _guarded(self, call: Any) -> None:
        state = self.server_state
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if state.away:  # a connection that outlived the stop
            self.close_connection = True
            return
        if "/enrol/" not in self.path and (
            state.revoked or self.headers.get("Authorization") != f"Device {API_TOKEN}"
        ):
            self._answer(401, {"detail": "this device's credential was revoked"})
            return
        try:
            with state.lock:
                status, values = call(data)
        except Refusal as refusal:
            status, values = refusal.status, {"detail": str(refusal), "status": refusal.status}
        self._answer(status, values)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _post(self, data: bytes) -> tuple[int, dict[str, Any]]:
        state, body = self.server_state, json.loads(data or b"{}")
        plain = {
            "/api/v1/enrol/": lambda: state.enrol(body),
            "/api/v1/device/hello/": lambda: state.hello(body),
            "/api/v1/device/measurements/": lambda: state.measurements(body),
            "/api/v1/device/unenrol/": state.unenrol,
        }
        if self.path in plain:
            return plain[self.path]()
        match = ASSIGNMENT.fullmatch(self.path)
        assert match, self.path
        return state.act(match[1], match[2], body)

    def do_HEAD(self) -> None:
        state, match = self.server_state, UPDATE.fullmatch(self.path)
        assert match, self.path
        with state.lock:
            state.uploads.append("HEAD")
            offset = len(state.offers[match[1]].part)
        self._answer(200, {}, Upload_Offset=str(offset))

    def do_PATCH(self) -> None:
        state, match = self.server_state, UPDATE.fullmatch(self.path)
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

    def do_GET(self) -> None:
        state = self.server_state
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


class StandIn(DeviceCalls):
    """``stop`` ends its connections; ``come_back`` starts it on the same port."""

    def __init__(self, broker_url: str, admin_url: str) -> None:
        super().__init__(broker_url, admin_url)
        self.away = False
        self.port = 0
        self._http: ThreadingHTTPServer | None = None

    def start(self) -> None:
        stand_in = self

        class Bound(Handler):
            server_state = stand_in

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Bound)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._http is not None:
            self.away = True
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def come_back(self) -> None:
        self.away = False
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
