"""Limits of uploads: rate, speed, lease, and one at a time."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from tests.device import Pi, digest_of
from tests.device_api.uploads import Work, assert_stored, offset, send
from webapp.api.device.upload import UploadPace
from webapp.jobs.artefacts.partial_uploads import PartialUpload
from webapp.jobs.models import Artefact, Assignment


def test_plain_http_where_the_site_has_tls(
    pi: Pi, work: Work, content: bytes, settings: Any
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert pi.upload(work["assignment"], content).status_code == 403
    forwarded = {"X-Forwarded-Proto": "https"}
    assert pi.upload(work["assignment"], content, headers=forwarded).status_code == 204


def test_device_throttle_is_429(
    pi: Pi, work: Work, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp.api.device.device_tokens import DeviceThrottle

    monkeypatch.setattr(DeviceThrottle, "allow_request", lambda *_: False)
    monkeypatch.setattr(DeviceThrottle, "wait", lambda _: 17.2)
    answer = send(pi, work, content, 0, 1000)
    assert (answer.status_code, answer["Retry-After"]) == (429, "18")


@pytest.mark.postgresql
def test_concurrent_upload_is_423(pi: Pi, work: Work, content: bytes) -> None:
    part = PartialUpload(Assignment.objects.get(pk=work["assignment"]).pk, digest_of(content))
    answer = pi.upload(work["assignment"], content)
    assert answer.status_code == 423
    assert "retry in a moment" in answer.json()["detail"]
    part.close()
    assert pi.upload(work["assignment"], content).status_code == 204


@pytest.mark.postgresql
def test_concurrent_uploads_are_stored_once(pi: Pi, work: Work, content: bytes) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(pi.upload(work["assignment"], content).status_code)
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {204, 423} and 204 in statuses
    assert_stored(work, content)
    assert Artefact.objects.filter(kind="update").count() == 1


def test_slow_upload_is_408(pi: Pi, work: Work, content: bytes, settings: Any) -> None:
    """The received part is stored, and the upload resumes after it."""
    settings.UPLOAD_WINDOW_S = 0.2
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(len(content)),
        "Upload-Offset": "0",
        "Upload-Length": str(len(content)),
    }
    answer = pi.patch(work["assignment"], digest_of(content), [content[:700]], headers, stalls=True)
    assert answer.status_code == 408
    assert "slower than 1000 bytes/s" in answer.json()["detail"]
    assert offset(pi, work, content) == 700
    settings.UPLOAD_WINDOW_S = 30.0
    assert pi.upload(work["assignment"], content, offset=700).status_code == 204
    assert_stored(work, content)


def test_minimum_throughput() -> None:
    pace = UploadPace(window_s=10.0, least_bps=100.0)
    assert all(pace.add(1.0, 0) for _ in range(9))
    assert pace.patience_s == 1.0
    assert pace.add(1.0, 1000), "enough in this window"
    assert all(pace.add(0.0, 0) for _ in range(1000)), "time of the server's disk does not count"
    assert not pace.add(10.0, 999)
    assert not UploadPace(10.0, 0.0).add(10.0, 0), "nothing at all is too slow for any limit"


def test_upload_renews_lease_and_stops_at_its_end(
    pi: Pi, work: Work, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp.api.device import updates

    requests = []

    def over(intake: updates.Intake) -> bool:
        requests.append(intake.assignment)
        return len(requests) < 3

    real = updates.admit
    monkeypatch.setattr(updates, "renew", over)
    monkeypatch.setattr(updates, "admit", lambda *args: replace(real(*args), lease_s=0.0))
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
        "Upload-Length": str(len(content)),
    }
    parts = [content[at : at + 100] for at in range(0, len(content), 100)]
    answer = pi.patch(work["assignment"], digest_of(content), parts, headers)
    assert answer.status_code == 409
    assert "stop sending" in answer.json()["detail"]
    assert len(requests) == 3
