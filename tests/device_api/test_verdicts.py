"""The site signs every refusal and redirect of a device's request, and the device can tell."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command

from fedcore.formats.line_bodies import Envelope
from fedcore.formats.line_messages import POLL_PATH
from fedcore.formats.verdicts import NONCE_HEADER, VERDICT_HEADER, from_header, read_verdict
from tests import asgi
from tests.device import Pi, digest_of
from tests.federation import Federation
from webapp.devices import signing
from webapp.devices.key_file import key_file
from webapp.jobs.lifecycle import enrolment
from webapp.transfer.signed_verdicts import SignedVerdicts
from workers.agent.http.verdicts import Question, VerdictReader, ask
from workers.agent.state.site_key import SiteKey

NOBODYS = "52e8e6cb-12f6-4b2c-8c27-5af6f043ddd1"


@pytest.fixture
def pi(federation: Federation) -> Pi:
    return federation.device("pi-kitchen")


def site_key() -> SiteKey:
    return SiteKey(base64.b64decode(signing.public_key()))


def answer_to(
    pi: Pi, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[Question, Any]:
    question = ask(method, path)
    sent = {
        "Authorization": f"Device {pi.enrolled.api_token}",
        "Content-Length": str(len(body)),
        **headers,
        **question.headers,
    }
    return question, asgi.call(method, path, sent, body).answer


def is_signed(pi: Pi, question: Question, answer: Any) -> bool:
    reader = VerdictReader(pi.enrolled.api_token, site_key())
    verdict = answer.get(VERDICT_HEADER, "")
    return reader.is_from_site(question, answer.status_code, verdict, answer.get("Location", ""))


def upload_headers(size: int, offset: int = 0) -> Mapping[str, str]:
    return {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Length": str(size),
        "Upload-Offset": str(offset),
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/api/v1/device/assignments/{NOBODYS}/", 404),
        ("GET", f"/api/v1/device/artefacts/{'0' * 64}/", 404),
        ("HEAD", f"/api/v1/device/assignments/{NOBODYS}/update/{'0' * 64}/", 404),
        ("PATCH", f"/api/v1/device/assignments/{NOBODYS}/update/{'0' * 64}/", 404),
        ("POST", POLL_PATH, 400),
        ("POST", "/api/v1/device/hello/", 426),
        ("GET", "/api/v1/no/such/call/", 404),
        ("GET", "/api/v1/device/unenrol/", 405),
        ("GET", "/healthz/no", 404),
    ],
)
def test_refusals_are_signed(pi: Pi, method: str, path: str, status: int) -> None:
    question, answer = answer_to(pi, method, path, b"{", **upload_headers(1))
    assert answer.status_code == status
    assert is_signed(pi, question, answer)
    assert not is_signed(pi, ask(method, path), answer), "of another request"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_revocation_is_signed(pi: Pi, method: str) -> None:
    enrolment.revoke(pi.device, None)
    path = {
        "GET": f"/api/v1/device/artefacts/{'0' * 64}/",
        "POST": POLL_PATH,
        "HEAD": f"/api/v1/device/assignments/{NOBODYS}/update/{'0' * 64}/",
    }[method]
    question, answer = answer_to(pi, method, path, b"{}" if method == "POST" else b"")
    assert answer.status_code == 401 and is_signed(pi, question, answer)


def test_verdict_is_about_the_credential_that_came(pi: Pi) -> None:
    """Or else anybody could have the site refuse a token of theirs, and pass the answer on."""
    path = f"/api/v1/device/artefacts/{'0' * 64}/"
    question = ask("GET", path)
    headers = {"Authorization": "Device of-nobody", **question.headers}
    answer = asgi.call("GET", path, headers).answer
    assert answer.status_code == 401 and answer[VERDICT_HEADER]
    assert not is_signed(pi, question, answer)


def test_refusals_of_uploads_are_signed(training: Federation) -> None:
    kitchen = training.pis[0]
    work = kitchen.take()
    content = kitchen.update_for(work)
    path = f"/api/v1/device/assignments/{work['assignment']}/update/{digest_of(content)}/"
    too_large = upload_headers(work["max_update_bytes"] + 1)
    wrong_offset = upload_headers(len(content), 5)
    for headers, status in ((too_large, 413), (wrong_offset, 409), ({}, 415)):
        question, answer = answer_to(kitchen, "PATCH", path, content[:10], **headers)
        assert answer.status_code == status and is_signed(kitchen, question, answer)
    other = path.replace(digest_of(content), "0" * 64)
    question, answer = answer_to(kitchen, "PATCH", other, content, **upload_headers(len(content)))
    assert answer.status_code == 422 and is_signed(kitchen, question, answer)


def test_success_needs_no_verdict(pi: Pi) -> None:
    _, answer = answer_to(pi, "POST", POLL_PATH, b'{"wait_s": 0}')
    assert answer.status_code == 200 and VERDICT_HEADER not in answer


@pytest.mark.parametrize("nonce", ["", "short", "with a space in it, and long", "x" * 65, "é" * 20])
def test_nothing_is_signed_without_a_nonce(db: None, nonce: str) -> None:
    path = f"/api/v1/device/artefacts/{'0' * 64}/"
    answer = asgi.call("GET", path, {NONCE_HEADER: nonce}).answer
    assert answer.status_code == 401 and VERDICT_HEADER not in answer


def redirect_of(target: str, scope: dict[str, Any]) -> dict[str, str]:
    sent: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"location", target.encode())]
        await send({"type": "http.response.start", "status": 307, "headers": headers})

    async def send(message: Any) -> None:
        sent.append(message)

    async_to_sync(SignedVerdicts(app))(scope, None, send)  # type: ignore[arg-type]
    return {name.decode().title(): value.decode() for name, value in sent[0]["headers"]}


def test_redirect_is_signed_with_its_target(pi: Pi) -> None:
    path = f"/edgewise/api/v1/device/artefacts/{'0' * 64}/"
    question = ask("GET", path)
    headers = {"Authorization": f"Device {pi.enrolled.api_token}", **question.headers}
    answer = redirect_of("https://bucket.example/a?b", asgi.scope("GET", path, headers))
    reader = VerdictReader(pi.enrolled.api_token, site_key())
    verdict = answer[VERDICT_HEADER]
    assert reader.is_from_site(question, 307, verdict, "https://bucket.example/a?b")
    assert not reader.is_from_site(question, 307, verdict, "https://elsewhere.example/")
    assert not reader.is_from_site(question, 307, verdict)


def test_verdict_does_not_open_as_an_envelope(pi: Pi) -> None:
    _, answer = answer_to(pi, "GET", f"/api/v1/device/assignments/{NOBODYS}/")
    signed = from_header(answer[VERDICT_HEADER])
    assert signed is not None and read_verdict(signed[0]) is not None
    assert b'"kind":"verdict"' in signed[0]


def test_replaced_key_leads_devices_on(pi: Pi, settings: Any, tmp_path: Any) -> None:
    settings.SIGNING_KEY_FILE = tmp_path / "signing-key.pem"
    device = site_key()
    before = device.public_key
    for _ in range(3):
        call_command("replace_signing_key", verbosity=0)
    file = key_file(settings.SIGNING_KEY_FILE)
    assert len(file.successions) == 3 and file.public_bytes != before
    assert settings.SIGNING_KEY_FILE.stat().st_mode & 0o077 == 0
    answer = pi.hello().json()
    assert device.follow([Envelope(**item) for item in answer["successions"]])
    assert device.public_key == file.public_bytes
    assert device.has_signed(b"x", signing.signature_of(b"x"))
    assert [path.name for path in tmp_path.glob("*.pem*")] == ["signing-key.pem"]
