"""Client of the server's device API over HTTP: enrolment and bytes. The line carries the rest.

Callers retry (``workers.agent.http.retry``). A refusal counts only if the site has signed it
(``fedcore.formats.verdicts``); what anything else on the way answers is worth another try.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import certifi

from fedcore.errors import ServerRefused, ServerUnavailable
from fedcore.formats.line_messages import POLL_PATH
from fedcore.formats.verdicts import VERDICT_HEADER
from workers.agent.agent_errors import AgentError, Busy, Revoked
from workers.agent.agent_settings import VERSION
from workers.agent.http.byte_counts import Traffic
from workers.agent.http.requests import (
    QUICK_S,
    Check,
    HttpConnection,
    ResponseBody,
    ServerResponse,
)
from workers.agent.http.responses import is_web_page, json_object, reason_of, wait_of
from workers.agent.http.server_clock import Clock
from workers.agent.http.socket import no_check
from workers.agent.http.throttle import LinkThrottle
from workers.agent.http.verdicts import REDIRECTS, Question, VerdictReader, ask, intercepted
from workers.agent.state.site_key import SiteKey

API = "/api/v1"
TRY_LATER = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 507})
USER_AGENT = {"User-Agent": f"edgewise-agent/{VERSION}"}
UPLOAD_ATTEMPTS = 4  # in one call, should the server accept less than it was sent


@dataclass(frozen=True)
class Address:
    """The server's URL, this device's API token, and how to connect.

    ``ca_file``: extra certificates to trust; ``throttle``: the link to emulate. ``key``: the
    site's, None before the enrolment, when any answer but a web page is taken for the site's.
    """

    url: str
    token: str = field(default="", repr=False)
    ca_file: Path | None = None
    throttle: LinkThrottle | None = None
    key: SiteKey | None = None


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
        self._verdicts = VerdictReader(address.token, address.key) if address.key else None
        self._http = HttpConnection(self._url, headers, self._tls, self.traffic, self._throttle)

    def close(self) -> None:
        self._http.close()

    def enrol(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._post("/enrol/", body)

    def unenrol(self) -> None:
        self._post("/device/unenrol/", {})

    def assignment(self, assignment: str) -> dict[str, Any]:
        """The answer to ``accept``, where it was too large for the line."""
        response = self._request("GET", f"/device/assignments/{assignment}/", "requests")
        return json_object(response)

    def poll(self, body: bytes, check: Check, patience_s: float) -> bytes:
        """One poll of a line that is no WebSocket; the answer may take ``patience_s`` seconds."""
        path = POLL_PATH.removeprefix(API)
        return self._request("POST", path, "polls", body, check, patience_s).body

    @contextmanager
    def download(
        self, sha256: str, start: int = 0, check: Check = no_check
    ) -> Iterator[tuple[int, ResponseBody]]:
        """Status and body: 206 from byte ``start``, 200 from the first, 416 beyond the end.

        One redirect of the site is followed, for example to a bucket, which signs no verdicts.
        The API token is not sent there.
        """
        headers = {"Accept": "*/*", **({"Range": f"bytes={start}-"} if start else {})}
        path = f"/device/artefacts/{sha256}/"
        question = ask("GET", API + path)
        with self._http.fetch(path, {**headers, **question.headers}, check) as (response, body):
            target = response.headers.get("location", "")
            if response.status not in REDIRECTS or not target:
                if response.status == 416:
                    self._check_origin(response, question, "downloads")
                else:
                    self._checked(response, question, "downloads")
                yield response.status, body
                return
            self._check_origin(response, question, "downloads")
        with (
            self._redirected(target) as (http, path),
            http.fetch(path, headers, check) as (response, body),
        ):
            if not 200 <= response.status < 300 or is_web_page(response):
                raise Busy(f"the site's storage answers {response.status} to downloads")
            yield response.status, body

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
            partial = self._request("HEAD", path, "uploads")
            offset = partial.integer("upload-offset") or 0
        for _ in range(UPLOAD_ATTEMPTS):
            status, offset = self._send_from(min(offset, size), path, file, check)
            if status != 409 and offset == size:
                return
        raise ServerUnavailable("the server keeps accepting only a part of the update")

    def _send_from(self, offset: int, path: str, file: Path, check: Check) -> tuple[int, int]:
        """Send a file's bytes from ``offset``; returns the status and the bytes that arrived."""
        question = ask("PATCH", API + path)
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Length": str(file.stat().st_size),
            "Upload-Offset": str(offset),
            **question.headers,
        }
        response = self._http.send_file(path, headers, file, offset, check)
        received = response.integer("upload-offset")
        if response.status == 409 and received is not None:
            self._check_origin(response, question, "uploads")
        else:
            self._checked(response, question, "uploads")
        if received is None:
            raise intercepted(response.status, "uploads")
        return response.status, received

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = self._request("POST", path, "requests", json.dumps(body).encode())
        return {} if response.status == 204 else json_object(response)

    def _request(
        self,
        method: str,
        path: str,
        requests: str,
        body: bytes | None = None,
        check: Check = no_check,
        patience_s: float = QUICK_S,
    ) -> ServerResponse:
        """The response to a small request if it is 2xx. ``requests``: a word for errors."""
        question = ask(method, API + path)
        headers = {**question.headers, **({"Content-Type": "application/json"} if body else {})}
        response = self._http.request(method, path, headers, body, check, patience_s)
        return self._checked(response, question, requests)

    def _checked(
        self, response: ServerResponse, question: Question, requests: str
    ) -> ServerResponse:
        """The response if it is 2xx; raises otherwise. Sets the clock from its Date."""
        status = response.status
        if 200 <= status < 300:
            if is_web_page(response):
                raise intercepted(status, requests)
            self.clock.observe(response.headers.get("date"))
            return response
        self._check_origin(response, question, requests)
        self.clock.observe(response.headers.get("date"))
        text = reason_of(response)
        if status in REDIRECTS:
            target = response.headers.get("location", "another address")
            raise ServerRefused(f"the server redirects to {target}; use that address", status)
        if status == 401:
            raise Revoked(text, status)
        if status in TRY_LATER:
            raise Busy(text, wait_of(response))
        raise ServerRefused(text, status)

    def _check_origin(self, response: ServerResponse, question: Question, requests: str) -> None:
        """Raises Intercepted for an answer that is not the site's own."""
        location = response.headers.get("location", "")
        if self._verdicts is None:
            is_own = not is_web_page(response)
        else:
            verdict = response.headers.get(VERDICT_HEADER.lower(), "")
            is_own = self._verdicts.is_from_site(question, response.status, verdict, location)
        if not is_own:
            raise intercepted(response.status, requests, location, wait_of(response))


@lru_cache(maxsize=8)
def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the system's certificate authorities and those in ``ca_file``.

    All connections of a process share it: it takes half a megabyte.
    """
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:  # a system without authorities of its own
        context.load_verify_locations(cafile=certifi.where())
    if ca_file:
        context.load_verify_locations(cafile=str(ca_file))
    return context


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
