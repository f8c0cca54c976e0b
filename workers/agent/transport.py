"""The HTTPS calls of docs/protocol.md, one method each. Retrying is the caller's (``backoff``)."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from fedcore.errors import ServerRefused, ServerUnavailable
from workers.agent.clock import Clock
from workers.agent.config import VERSION
from workers.agent.errors import AgentError, Busy, Revoked
from workers.agent.traffic import CountingTransport, Traffic

API = "/api/v1"
COME_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
QUICK = httpx.Timeout(10.0, connect=5.0)
# A server hashes and checks a large update before it answers.
PATIENT = httpx.Timeout(30.0, connect=5.0, read=600.0)


@dataclass(frozen=True)
class Address:
    """Where the server is and what proves who we are. ``ca_file``: extra certificates to trust."""

    url: str
    token: str = field(default="", repr=False)
    ca_file: Path | None = None


class Server:
    """The server as this device sees it.

    Raises ServerUnavailable where the same call may succeed later, Revoked for 401, ServerRefused
    for any other no. One instance serves one thread at a time.
    """

    def __init__(
        self, address: Address, clock: Clock | None = None, traffic: Traffic | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.traffic = traffic or Traffic()
        headers = {"User-Agent": f"edgewise-agent/{VERSION}", "Accept": "application/json"}
        if address.token:
            headers["Authorization"] = f"Device {address.token}"
        verify = (
            ssl.create_default_context(cafile=str(address.ca_file)) if address.ca_file else True
        )
        self._client = httpx.Client(
            base_url=address.url.rstrip("/") + API,
            headers=headers,
            timeout=QUICK,
            transport=CountingTransport(httpx.HTTPTransport(verify=verify), self.traffic),
        )

    def close(self) -> None:
        self._client.close()

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
    def download(self, sha256: str, start: int = 0) -> Iterator[httpx.Response]:
        """A streaming answer: 206 from byte ``start``, 200 from the first, 416 beyond the end."""
        headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
        if start:
            headers["Range"] = f"bytes={start}-"
        url = f"/device/artefacts/{sha256}/"
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code != 416:
                    self._judge(response)
                yield response
        except httpx.TransportError as error:
            raise _unavailable(error) from error

    def upload(self, assignment: str, chunks: Iterable[bytes], size: int, sha256: str) -> None:
        """Send an update's bytes, ``size`` of them, without holding them in memory."""
        headers = {
            "Content-Length": str(size),
            "Content-Type": "application/octet-stream",
            "X-Content-SHA256": sha256,
        }
        url = f"/device/assignments/{assignment}/update/"
        self._send("PUT", url, content=chunks, headers=headers, timeout=PATIENT)

    def _act(self, assignment: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._post(f"/device/assignments/{assignment}/{verb}/", body)

    def _post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = self._send("POST", url, json=body)
        if response.status_code == 204:
            return {}
        try:
            values = response.json()
        except ValueError as error:
            raise ServerUnavailable("the answer is no JSON; is this an Edgewise server?") from error
        return values if isinstance(values, dict) else {}

    def _send(self, method: str, url: str, **options: Any) -> httpx.Response:
        try:
            response = self._client.request(method, url, **options)
        except httpx.TransportError as error:
            raise _unavailable(error) from error
        self._judge(response)
        return response

    def _judge(self, response: httpx.Response) -> None:
        self.clock.observe(response.headers.get("date"))
        status = response.status_code
        if response.is_success:
            return
        response.read()
        text = reason_of(response)
        if response.is_redirect:
            where = response.headers.get("location", "elsewhere")
            raise ServerRefused(f"the server points to {where}; use that address", status)
        if status == 401:
            raise Revoked(text, status)
        if status in COME_AGAIN:
            raise Busy(text, _retry_after(response))
        raise ServerRefused(text, status)


def _unavailable(error: httpx.TransportError) -> ServerUnavailable:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ServerUnavailable(
            "the server's certificate is not trusted; set EDGEWISE_CA_FILE to its authority's file"
        )
    return ServerUnavailable(f"no answer from the server ({error or type(error).__name__})")


def reason_of(response: httpx.Response) -> str:
    """What a problem document says, in one line; else the status."""
    try:
        values = response.json()
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return f"the server answered {response.status_code} {response.reason_phrase}".strip()
    said = [str(values[key]) for key in ("detail", "title") if values.get(key)][:1]
    known = {"type", "title", "status", "detail", "instance"}
    said += [f"{key}: {item}" for key, item in values.items() if key not in known]
    return "; ".join(said) or f"the server answered {response.status_code}"


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), 300.0) if text.isdigit() else 0.0


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
