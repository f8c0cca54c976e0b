"""Downloads sent by the proxy, the bucket, the ASGI server or the web process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import uvicorn
from rest_framework.test import APIClient

from tests import asgi
from tests.device import API, Pi, digest_of
from tests.federation import Federation
from webapp.api.device import bodies
from webapp.jobs.artefacts.store import local_file, open_artefact
from webapp.jobs.models import Artefact, Assignment
from webapp.transfer import file_responses


@pytest.fixture
def pi(federation: Federation) -> Pi:
    kitchen, _ = federation.devices("pi-kitchen", "pi-porch")
    federation.started()
    return kitchen


@pytest.fixture
def model(pi: Pi) -> Artefact:
    return Artefact.objects.get(pk=pi.take()["global"]["sha256"])


@pytest.fixture
def content(model: Artefact) -> bytes:
    with open_artefact(model) as source:
        return source.read()


def get(pi: Pi, model: Artefact, method: str = "GET", **how: Any) -> asgi.Exchange:
    headers = {"Authorization": f"Device {pi.enrolled.api_token}", **how.pop("headers", {})}
    return asgi.call(method, f"{API}/artefacts/{model.sha256}/", headers, **how)


def test_web_process_sends_pieces(pi: Pi, model: Artefact, content: bytes) -> None:
    answer = get(pi, model).answer
    assert (answer.status_code, answer.content) == (200, content)
    assert answer["Content-Length"] == str(len(content))
    answer = get(pi, model, headers={"Range": "bytes=5-1004"}).answer
    assert (answer.status_code, answer.content) == (206, content[5:1005])
    assert answer["Content-Range"] == f"bytes 5-1004/{len(content)}"
    assert Assignment.objects.get(device=pi.device, phase="accepted").bytes_down == len(
        content
    ) + len(content[5:1005])


def test_head_request_sends_no_body(pi: Pi, model: Artefact) -> None:
    client = pi.enrolled.client
    answer = client.head(f"{API}/artefacts/{model.sha256}/")
    assert answer.status_code == 405, "devices fetch, or know"


def test_people_are_served_the_same_way(
    pi: Pi, model: Artefact, content: bytes, viewer: Any
) -> None:
    from webapp.accounts.models import create_token

    _, secret = create_token(viewer, "script")
    path = f"/api/v1/artefacts/{model.sha256}/bytes/"
    token = {"Authorization": f"Token {secret}"}
    answer = asgi.call("GET", path, {**token, "Range": "bytes=-7"}).answer
    assert (answer.status_code, answer.content) == (206, content[-7:])
    assert answer["Content-Disposition"].startswith("attachment; filename=")
    answer = asgi.call("HEAD", path, token).answer
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["Content-Length"] == str(len(content))


def test_if_range(pi: Pi, model: Artefact, content: bytes) -> None:
    """A range of other bytes than the asker has a part of would be of no use to it."""
    for etag, status in ((f'"{model.sha256}"', 206), ('"other"', 200)):
        headers = {"Range": "bytes=5-", "If-Range": etag}
        assert get(pi, model, headers=headers).answer.status_code == status


@pytest.fixture
def served(federation: Federation) -> Iterator[str]:
    """The site under a real uvicorn, in a thread."""
    from webapp.asgi import application

    config = uvicorn.Config(
        application, port=0, http="httptools", lifespan="off", log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_uvicorn_socket_is_used(
    served: str, pi: Pi, model: Artefact, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways, through all that stands before the views."""
    used = []
    send, take = file_responses.send_file, bodies.SocketReader

    async def sending(exchange: Any, handle: int, start: int, stop: int) -> None:
        used.append((start, stop))
        await send(exchange, handle, start, stop)

    def taking(exchange: Any, length: int) -> Any:
        used.append(length)
        return take(exchange, length)

    monkeypatch.setattr(file_responses, "send_file", sending)
    monkeypatch.setattr(bodies, "SocketReader", taking)
    monkeypatch.setattr(bodies, "MIN_BYTES", 1000)
    token = {"Authorization": f"Device {pi.enrolled.api_token}"}
    with httpx.Client(base_url=f"{served}{API}", headers=token) as client:
        url = f"/artefacts/{model.sha256}/"
        assert client.get(url, headers={"Range": "bytes=5-1004"}).content == content[5:1005]
        assert client.get(url).content == content
        work = Assignment.objects.get(device=pi.device, phase="accepted")
        update = pi.update_for(
            {
                "global": {"sha256": model.sha256},
                "job": str(work.round.job_id),
                "round": work.round.number,
            }
        )
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": "0",
            "Upload-Length": str(len(update)),
        }
        path = f"/assignments/{work.pk}/update/{digest_of(update)}/"
        answer = client.patch(path, content=update, headers=headers)
        assert (answer.status_code, answer.headers["connection"]) == (204, "close")
    assert used == [(5, 1005), (0, len(content)), len(update)]


def test_server_with_pathsend(pi: Pi, model: Artefact, content: bytes) -> None:
    sent = get(pi, model, extensions={"http.response.pathsend": {}}).sent
    with local_file(model) as path:
        assert sent[1] == {"type": "http.response.pathsend", "path": str(path)}
    # It knows whole files only.
    headers = {"Range": "bytes=5-"}
    exchange = get(pi, model, headers=headers, extensions={"http.response.pathsend": {}})
    assert exchange.answer.content == content[5:]


def test_server_with_zerocopysend(
    pi: Pi, model: Artefact, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    async def send(exchange: asgi.Exchange, message: Any) -> None:
        if message["type"] == "http.response.zerocopysend":
            read.append(os.pread(message["file"], message["count"], message["offset"]))
        exchange.sent.append(dict(message))

    monkeypatch.setattr(asgi.Exchange, "send", send)
    headers = {"Range": "bytes=5-1004"}
    sent = get(pi, model, headers=headers, extensions={"http.response.zerocopysend": {}}).sent
    assert read == [content[5:1005]]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_proxy_sends_the_file(
    pi: Pi, model: Artefact, content: bytes, settings: Any, viewer_client: APIClient
) -> None:
    """The range too is its affair; the web process only says which file."""
    settings.X_ACCEL_PREFIX = "/_artefacts/"
    answer = get(pi, model, headers={"Range": "bytes=5-1004"}).answer
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer["X-Accel-Redirect"] == f"/_artefacts/{model.sha256[:2]}/{model.sha256}"
    with local_file(model) as path:
        assert str(path).endswith(answer["X-Accel-Redirect"].removeprefix("/_artefacts"))
    assert Assignment.objects.get(device=pi.device, phase="accepted").bytes_down == 1000
    assert get(pi, model, headers={"Range": "bytes=999999999-"}).answer.status_code == 416
    download = viewer_client.get(f"/api/v1/artefacts/{model.sha256}/bytes/")
    assert download["Content-Disposition"].startswith("attachment; filename=")
    stranger = {"Authorization": "Device nonsense"}
    assert "X-Accel-Redirect" not in get(pi, model, headers=stranger).answer


def test_bucket_sends_the_file(
    pi: Pi, model: Artefact, settings: Any, viewer_client: APIClient
) -> None:
    """By an address that opens this one file for a while, to whoever was let in here."""
    bucket = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": "edgewise",
            "endpoint_url": "https://s3.example",
            "access_key": "key",
            "secret_key": "secret",
            "signature_version": "s3v4",
        },
    }
    settings.STORAGES = {**settings.STORAGES, "artefacts": bucket}
    settings.S3_REDIRECT = True
    answer = get(pi, model).answer
    assert (answer.status_code, answer.content) == (307, b"")
    where = urlsplit(answer["Location"])
    assert (where.scheme, where.netloc) == ("https", "s3.example")
    assert where.path == f"/edgewise/{model.sha256[:2]}/{model.sha256}"
    requests = parse_qs(where.query)
    assert requests["X-Amz-Signature"] and int(requests["X-Amz-Expires"][0]) <= 3600
    download = viewer_client.get(f"/api/v1/artefacts/{model.sha256}/bytes/")
    result = parse_qs(urlsplit(download["Location"]).query)
    assert result["response-content-disposition"][0].startswith("attachment; filename=")


@pytest.fixture
def viewer_client(viewer: Any) -> APIClient:
    client = APIClient()
    client.force_authenticate(viewer)
    return client
