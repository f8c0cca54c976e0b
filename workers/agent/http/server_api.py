"""The HTTPS calls of docs/reference/protocol.md, one method each. Callers retry."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import certifi

from fedcore.errors import ServerRefused, ServerUnavailable
from workers.agent.agent_errors import AgentError, Busy, Revoked
from workers.agent.agent_settings import VERSION
from workers.agent.http.byte_counts import Traffic
from workers.agent.http.connection import no_check
from workers.agent.http.requests import Check, HttpConnection, ResponseBody, ServerResponse
from workers.agent.http.server_clock import Clock
from workers.agent.http.throttle import LinkThrottle

API = "/api/v1"
COME_AGAIN = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 507})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
AGENT = {"User-Agent": f"edgewise-agent/{VERSION}"}
PIECES = 4  # of an upload in one call, should the server take less at once than it was sent


@dataclass(frozen=True)
class Address:
    """Where the server is, over which link, and what proves who we are.

    ``ca_file``: extra certificates to trust; ``pace``: a link to emulate.
    """

    url: str
    token: str = field(default="", repr=False)
    ca_file: Path | None = None
    pace: LinkThrottle | None = None


class ServerApi:
    """The server as this device sees it.

    Raises ServerUnavailable where the same call may succeed later, Revoked for 401, ServerRefused
    for any other no. One instance serves one thread at a time.
    """

    def __init__(
        self, address: Address, clock: Clock | None = None, traffic: Traffic | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.traffic = traffic or Traffic()
        headers = {**AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
        if address.token:
            headers["Authorization"] = f"Device {address.token}"
        self._tls = trusting(address.ca_file)
        self._url = address.url.rstrip("/") + API
        self._pace = address.pace
        self._link = HttpConnection(self._url, headers, self._tls, self.traffic, self._pace)

    def close(self) -> None:
        self._link.close()

    def enrol(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._post("/enrol/", body)

    def hello(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._post("/device/hello/", body)

    def measurements(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._post("/device/measurements/", body)

    def unenrol(self) -> None:
        self._post("/device/unenrol/", {})

    def accept(self, assignment: str, boot_id: str) -> dict[str, Any]:
        return self._act(assignment, "accept", {"boot_id": boot_id})

    def progress(self, assignment: str, phase: str) -> None:
        self._act(assignment, "progress", {"phase": phase})

    def report(self, assignment: str, body: Mapping[str, Any]) -> None:
        self._act(assignment, "report", body)

    def fail(self, assignment: str, reason: str, retryable: bool, step: int | None = None) -> None:
        body = {"reason": reason[:2000], "retryable": retryable, "step": step}
        self._act(assignment, "fail", body)

    def refuse(self, assignment: str, reason: str) -> None:
        self._act(assignment, "refuse", {"reason": reason[:2000]})

    @contextmanager
    def download(
        self, sha256: str, start: int = 0, check: Check = no_check
    ) -> Iterator[tuple[int, ResponseBody]]:
        """Status and body: 206 from byte ``start``, 200 from the first, 416 beyond the end.

        One redirect is followed, such as to a bucket; our token does not go there.
        """
        asked = {"Accept": "*/*", **({"Range": f"bytes={start}-"} if start else {})}
        path = f"/device/artefacts/{sha256}/"
        with self._link.fetch(path, asked, check) as (answer, body):
            where = answer.headers.get("location", "")
            if answer.status not in REDIRECTS or not where:
                yield self._large(answer), body
                return
        with self._elsewhere(where) as (link, path), link.fetch(path, asked, check) as found:
            yield self._large(found[0]), found[1]

    def _large(self, answer: ServerResponse) -> int:
        if answer.status != 416:
            self._judge(answer)
        return answer.status

    @contextmanager
    def _elsewhere(self, where: str) -> Iterator[tuple[HttpConnection, str]]:
        """A connection to where the server points, no less private than the server's, and path."""
        parts = urlsplit(urljoin(self._url, where))
        allowed = ("https",) if self._url.startswith("https:") else ("http", "https")
        if parts.scheme not in allowed or not parts.hostname:
            raise ServerRefused(f"the server points to {where[:200]}, which is not private", 307)
        headers = {**AGENT, "Accept-Encoding": "identity"}
        where = f"{parts.scheme}://{parts.netloc}"
        link = HttpConnection(where, headers, self._tls, self.traffic, self._pace)
        try:
            yield link, urlunsplit(("", "", parts.path or "/", parts.query, ""))
        finally:
            link.close()

    def upload(
        self,
        assignment: str,
        file: Path,
        sha256: str,
        check: Check = no_check,
        resume: bool = False,
    ) -> None:
        """Send an update's bytes, or what the server lacks of them.

        ``resume`` asks first how much that is; without it the server is taken to have nothing.
        """
        path, size = f"/device/assignments/{assignment}/update/{sha256}/", file.stat().st_size
        offset = 0
        if resume:
            held = self._judge(self._link.ask("HEAD", path, {}))
            offset = held.number("upload-offset") or 0
        headers = {"Content-Type": "application/offset+octet-stream", "Upload-Length": str(size)}
        for _ in range(PIECES):
            told = {**headers, "Upload-Offset": str(min(offset, size))}
            answer = self._link.send_file(path, told, file, min(offset, size), check)
            there = answer.number("upload-offset")
            if answer.status != 409 or there is None:
                self._judge(answer)
            if answer.status != 409 and there == size:
                return
            offset = there or 0
        raise ServerUnavailable("the server takes the update, but not to its end")

    def _act(self, assignment: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._post(f"/device/assignments/{assignment}/{verb}/", body)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        told = {"Content-Type": "application/json"}
        answer = self._judge(self._link.ask("POST", path, told, json.dumps(body).encode()))
        if answer.status == 204:
            return {}
        try:
            values = json.loads(answer.body)
        except ValueError as error:
            raise ServerUnavailable("the answer is no JSON; is this an Edgewise server?") from error
        return values if isinstance(values, dict) else {}

    def _judge(self, answer: ServerResponse) -> ServerResponse:
        """The answer, where it is a yes."""
        self.clock.observe(answer.headers.get("date"))
        status = answer.status
        if 200 <= status < 300:
            return answer
        text = reason_of(answer)
        if status in REDIRECTS:
            where = answer.headers.get("location", "elsewhere")
            raise ServerRefused(f"the server points to {where}; use that address", status)
        if status == 401:
            raise Revoked(text, status)
        if status in COME_AGAIN:
            raise Busy(text, min(float(answer.number("retry-after") or 0), 300.0))
        raise ServerRefused(text, status)


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """What this system trusts, and the certificates in ``ca_file`` beside it."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:  # a system without authorities of its own
        context.load_verify_locations(cafile=certifi.where())
    if ca_file:
        context.load_verify_locations(cafile=str(ca_file))
    return context


def reason_of(answer: ServerResponse) -> str:
    """What a problem document says, in one line; else the status."""
    try:
        values = json.loads(answer.body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return f"the server answered {answer.status} {answer.reason}".strip()
    said = [str(values[key]) for key in ("detail", "title") if values.get(key)][:1]
    known = {"type", "title", "status", "detail", "instance"}
    said += [f"{key}: {item}" for key, item in values.items() if key not in known]
    return "; ".join(said) or f"the server answered {answer.status}"


def check_url(url: str) -> str:
    """The server's address without a trailing slash; raises AgentError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AgentError(
            f"--server must be an address such as https://edgewise.example, not {url!r}"
        )
    return url.rstrip("/")


def is_private(url: str) -> bool:
    """Whether a credential may travel there: by TLS, or within this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")
