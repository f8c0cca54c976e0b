"""Client of the server's device API (docs/reference/protocol.md): one method per call.

Callers retry (``workers.agent.http.retry``).
"""

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
from workers.agent.http.requests import Check, HttpConnection, ResponseBody, ServerResponse
from workers.agent.http.server_clock import Clock
from workers.agent.http.socket import no_check
from workers.agent.http.throttle import LinkThrottle

API = "/api/v1"
TRY_LATER = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 507})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
USER_AGENT = {"User-Agent": f"edgewise-agent/{VERSION}"}
UPLOAD_ATTEMPTS = 4  # in one call, should the server accept less than it was sent


@dataclass(frozen=True)
class Address:
    """The server's URL, this device's API token, and how to connect.

    ``ca_file``: extra certificates to trust; ``throttle``: the link to emulate.
    """

    url: str
    token: str = field(default="", repr=False)
    ca_file: Path | None = None
    throttle: LinkThrottle | None = None


class ServerApi:
    """The server's API for this device.

    Raises ServerUnavailable where the same call may succeed later, Revoked for 401, and
    ServerRefused for any other refusal. Use an instance from one thread at a time.
    """

    def __init__(
        self, address: Address, clock: Clock | None = None, traffic: Traffic | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.traffic = traffic or Traffic()
        headers = {**USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
        if address.token:
            headers["Authorization"] = f"Device {address.token}"
        self._tls = tls_context(address.ca_file)
        self._url = address.url.rstrip("/") + API
        self._throttle = address.throttle
        self._http = HttpConnection(self._url, headers, self._tls, self.traffic, self._throttle)

    def close(self) -> None:
        self._http.close()

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

        One redirect is followed, for example to a bucket; the API token is not sent there.
        """
        headers = {"Accept": "*/*", **({"Range": f"bytes={start}-"} if start else {})}
        path = f"/device/artefacts/{sha256}/"
        with self._http.fetch(path, headers, check) as (response, body):
            target = response.headers.get("location", "")
            if response.status not in REDIRECTS or not target:
                yield self._download_status(response), body
                return
        with (
            self._redirected(target) as (http, path),
            http.fetch(path, headers, check) as (response, body),
        ):
            yield self._download_status(response), body

    def _download_status(self, response: ServerResponse) -> int:
        if response.status != 416:
            self._checked(response)
        return response.status

    @contextmanager
    def _redirected(self, target: str) -> Iterator[tuple[HttpConnection, str]]:
        """A connection to a redirect's host, and the path there. HTTPS never leads to HTTP."""
        parts = urlsplit(urljoin(self._url, target))
        allowed = ("https",) if self._url.startswith("https:") else ("http", "https")
        if parts.scheme not in allowed or not parts.hostname:
            text = f"the server redirects to {target[:200]}, which is not private"
            raise ServerRefused(text, 307)
        headers = {**USER_AGENT, "Accept-Encoding": "identity"}
        origin = f"{parts.scheme}://{parts.netloc}"
        http = HttpConnection(origin, headers, self._tls, self.traffic, self._throttle)
        try:
            yield http, urlunsplit(("", "", parts.path or "/", parts.query, ""))
        finally:
            http.close()

    def upload(
        self,
        assignment: str,
        file: Path,
        sha256: str,
        check: Check = no_check,
        resume: bool = False,
    ) -> None:
        """Send an update's bytes, or those that the server lacks.

        ``resume`` first asks how many it has; otherwise it is assumed to have none.
        """
        path, size = f"/device/assignments/{assignment}/update/{sha256}/", file.stat().st_size
        offset = 0
        if resume:
            partial = self._checked(self._http.request("HEAD", path, {}))
            offset = partial.integer("upload-offset") or 0
        base_headers = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Length": str(size),
        }
        for _ in range(UPLOAD_ATTEMPTS):
            headers = {**base_headers, "Upload-Offset": str(min(offset, size))}
            response = self._http.send_file(path, headers, file, min(offset, size), check)
            received = response.integer("upload-offset")
            if response.status != 409 or received is None:
                self._checked(response)
            if response.status != 409 and received == size:
                return
            offset = received or 0
        raise ServerUnavailable("the server keeps accepting only a part of the update")

    def _act(self, assignment: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._post(f"/device/assignments/{assignment}/{verb}/", body)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        encoded = json.dumps(body).encode()
        response = self._checked(self._http.request("POST", path, headers, encoded))
        if response.status == 204:
            return {}
        try:
            values = json.loads(response.body)
        except ValueError as error:
            raise ServerUnavailable(
                "the answer is not JSON; is this an Edgewise server?"
            ) from error
        return values if isinstance(values, dict) else {}

    def _checked(self, response: ServerResponse) -> ServerResponse:
        """The response if it is 2xx; raises otherwise. Sets the clock from its Date."""
        self.clock.observe(response.headers.get("date"))
        status = response.status
        if 200 <= status < 300:
            return response
        text = reason_of(response)
        if status in REDIRECTS:
            target = response.headers.get("location", "another address")
            raise ServerRefused(f"the server redirects to {target}; use that address", status)
        if status == 401:
            raise Revoked(text, status)
        if status in TRY_LATER:
            raise Busy(text, min(float(response.integer("retry-after") or 0), 300.0))
        raise ServerRefused(text, status)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the system's certificate authorities and those in ``ca_file``."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:  # a system without authorities of its own
        context.load_verify_locations(cafile=certifi.where())
    if ca_file:
        context.load_verify_locations(cafile=str(ca_file))
    return context


def reason_of(response: ServerResponse) -> str:
    """A problem document's text in one line; otherwise the status."""
    try:
        values = json.loads(response.body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return f"the server answered {response.status} {response.reason}".strip()
    texts = [str(values[key]) for key in ("detail", "title") if values.get(key)][:1]
    standard = {"type", "title", "status", "detail", "instance"}
    texts += [f"{key}: {item}" for key, item in values.items() if key not in standard]
    return "; ".join(texts) or f"the server answered {response.status}"


def check_url(url: str) -> str:
    """The server's URL without a trailing slash; raises AgentError where it is not a URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AgentError(f"--server must be a URL such as https://edgewise.example, not {url!r}")
    return url.rstrip("/")


def protects_credentials(url: str) -> bool:
    """Whether a credential may be sent there: over TLS, or within this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")
