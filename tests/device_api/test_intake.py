"""Floods are stopped at the door, with or without a token, and a full disk there is said."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import uuid
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator

from tests.federation import Federation
from webapp.asgi import application
from webapp.jobs.models import Artefact

MEGABYTE = 2**20
UPDATE = "/api/v1/device/assignments/{}/update/"


class Request:
    """An HTTP request over ASGI, its body sent piece by piece for as long as anybody listens."""

    def __init__(self, method: str, path: str, token: str = "", announced: int | None = None):
        headers = [(b"host", b"localhost")]
        if token:
            headers.append((b"authorization", token.encode()))
        if announced is not None:
            headers.append((b"content-length", str(announced).encode()))
        headers += [(b"content-type", b"application/json"), (b"x-content-sha256", b"0" * 64)]
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers,
            "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        self._app = ApplicationCommunicator(application, scope)

    async def send(self, body: bytes, more: bool) -> None:
        await self._app.send_input({"type": "http.request", "body": body, "more_body": more})

    async def answer(self) -> tuple[int, dict[str, Any]]:
        start = await self._app.receive_output(20)
        assert (b"content-type", b"application/problem+json") in [
            (name.lower(), value) for name, value in start["headers"]
        ]
        body = b""
        more = True
        while more:
            part = await self._app.receive_output(20)
            body, more = body + part["body"], part.get("more_body", False)
        await self._app.wait(20)
        return start["status"], json.loads(body)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", UPDATE.format(uuid.UUID(int=7)), 401),
        ("PUT", UPDATE.format("f" * 36), 401),
        ("POST", "/api/v1/enrol/", 413),
        ("POST", "/api/v1/device/measurements/", 413),
        ("POST", "/login/", 413),
        ("GET", "/api/v1/jobs/", 413),
    ],
)
async def test_an_announced_flood_is_not_even_begun(method: str, path: str, status: int) -> None:
    request = Request(method, path, announced=100 * MEGABYTE)
    found, body = await request.answer()
    assert found == body["status"] == status
    assert body["detail"]


@pytest.mark.django_db(transaction=True)
async def test_a_flood_that_nobody_announced_is_cut_off() -> None:
    request = Request("PUT", UPDATE.format(uuid.UUID(int=7)))
    for _ in range(11):
        await request.send(bytes(MEGABYTE), more=True)
    found, body = await request.answer()
    assert found == 401
    assert body["detail"] == "give the token of an enrolled device"


async def test_updates_are_bounded_by_their_model(federation: Federation) -> None:
    def prepare() -> tuple[str, str]:
        pi = federation.device("pi-kitchen")
        federation.started()
        work = pi.take()
        Artefact.objects.filter(pk=work["global"]["sha256"]).update(size_bytes=30 * MEGABYTE)
        return f"Device {pi.enrolled.api_token}", work["assignment"]

    token, assignment = await sync_to_async(prepare)()
    too_much = 30 * MEGABYTE + 65_536 + 1
    request = Request("PUT", UPDATE.format(assignment), token, too_much)
    status, body = await request.answer()
    assert (status, body["detail"]) == (413, f"more than the {too_much - 1} bytes expected here")

    request = Request("PUT", UPDATE.format(assignment), token, 11 * MEGABYTE)
    for left in range(10, -1, -1):
        await request.send(bytes(MEGABYTE), more=bool(left))
    status, body = await request.answer()
    assert status == 422, "taken in, and judged by the view"

    request = Request("PUT", UPDATE.format(uuid.UUID(int=7)), token, 11 * MEGABYTE)
    status, body = await request.answer()
    assert (status, body["detail"]) == (
        409,
        "this assignment takes no update; wait for the next offer",
    )


@pytest.mark.django_db(transaction=True)
async def test_a_full_disk_while_a_body_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(tempfile.SpooledTemporaryFile):  # type: ignore[type-arg]
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", Full)
    request = Request("POST", "/api/v1/device/measurements/")
    await request.send(b"{}", more=False)
    status, body = await request.answer()
    assert status == 507
    assert "the server's disk is full" in body["detail"]


@pytest.mark.django_db(transaction=True)
async def test_an_ordinary_request_passes() -> None:
    parts = [b'{"token": "x", ', b'"name": "pi"}']
    request = Request("POST", "/api/v1/enrol/", announced=len(b"".join(parts)))
    await request.send(parts[0], more=True)
    await request.send(parts[1], more=False)
    status, body = await request.answer()
    assert status == 403
    assert "unknown" in body["detail"]
