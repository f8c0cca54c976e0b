"""Downloads of devices: complete or in ranges, and only what they need."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpResponseBase

from tests.device import Pi, digest_of
from tests.federation import Federation
from webapp.jobs.artefacts.store import open_artefact
from webapp.jobs.models import Artefact, Assignment


@pytest.fixture
def pi(federation: Federation) -> Pi:
    kitchen, _ = federation.devices("pi-kitchen", "pi-porch")
    federation.started()
    return kitchen


@pytest.fixture
def model(pi: Pi) -> Artefact:
    """What ``pi`` is working on."""
    return Artefact.objects.get(pk=pi.take()["global"]["sha256"])


def content_of(artefact: Artefact) -> bytes:
    with open_artefact(artefact) as source:
        return source.read()


def body(answer: HttpResponseBase) -> bytes:
    return b"".join(answer.streaming_content)  # type: ignore[attr-defined]


def test_complete_artefact_is_sent(pi: Pi, model: Artefact) -> None:
    answer = pi.download(model.sha256)
    content = content_of(model)
    assert answer.status_code == 200
    assert answer.streaming, "never the whole in memory"
    assert body(answer) == content
    assert answer["Content-Length"] == str(len(content))
    assert answer["ETag"] == f'"{model.sha256}"'
    assert answer["Accept-Ranges"] == "bytes"
    assert answer["Content-Type"] == "application/octet-stream"
    assert "no-transform" in answer["Cache-Control"]


RANGES = [
    ("bytes=0-0", slice(0, 1)),
    ("bytes=0-9", slice(0, 10)),
    ("bytes=100-199", slice(100, 200)),
    ("bytes=100-", slice(100, None)),
    ("bytes=-7", slice(-7, None)),
    ("bytes=-999999999", slice(0, None)),
    ("bytes=100-999999999", slice(100, None)),
]


def test_byte_range_is_sent(pi: Pi, model: Artefact, subtests: Any) -> None:
    content = content_of(model)
    for header, expected in RANGES:
        with subtests.test(header):
            answer = pi.download(model.sha256, Range=header)
            assert answer.status_code == 206
            assert body(answer) == content[expected]
            start, stop, _ = expected.indices(len(content))
            assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
            assert answer["Content-Length"] == str(stop - start)


def test_range_beyond_the_end_is_416(pi: Pi, model: Artefact) -> None:
    for header in ("bytes=999999999-", "bytes=999999999-1000000000", "bytes=-0"):
        answer = pi.download(model.sha256, Range=header)
        assert answer.status_code == 416
        assert answer["Content-Range"] == f"bytes */{model.size_bytes}"


def test_invalid_range_gets_complete_artefact(pi: Pi, model: Artefact) -> None:
    for header in ("", "bytes=-", "bytes=x-y", "lines=1-2", "bytes=0-1,4-5"):
        answer = pi.download(model.sha256, Range=header)
        assert answer.status_code == 200
        assert body(answer) == content_of(model)


def test_ranges_add_up_to_the_artefact(pi: Pi, model: Artefact) -> None:
    """What a device does after each broken connection."""
    had = b""
    while len(had) < model.size_bytes:
        answer = pi.download(model.sha256, Range=f"bytes={len(had)}-{len(had) + 1499}")
        had += body(answer)
    assert had == content_of(model)
    assert Assignment.objects.get(device=pi.device, phase="accepted").bytes_down == len(had)


def test_known_etag_is_304(pi: Pi, model: Artefact) -> None:
    answer = pi.download(model.sha256, **{"If-None-Match": f'"{model.sha256}"'})
    assert answer.status_code == 304
    assert answer.content == b""


def test_device_downloads_only_needed_artefacts(federation: Federation, pi: Pi) -> None:
    work = pi.take()
    stranger = federation.device("pi-attic")
    sha256 = work["global"]["sha256"]
    assert stranger.download(sha256).status_code == 404
    content = pi.update_for(work)
    pi.upload(work["assignment"], content)
    assert pi.download(digest_of(content)).status_code == 404, "an update is for the server alone"
    pi.report(work["assignment"], content)
    assert pi.download(sha256).status_code == 404, "its work is done"


def test_unknown_artefact_is_404(pi: Pi) -> None:
    pi.take()
    for name in ("0" * 64, "short", "..%2f..%2fsecret", "%00"):
        answer = pi.enrolled.client.get(f"/api/v1/device/artefacts/{name}/")
        assert answer.status_code == 404
        assert answer["Content-Type"] == "application/problem+json"


def test_evaluation_gets_the_new_model(federation: Federation, pi: Pi) -> None:
    job = federation.job
    assert job is not None
    for device in federation.pis:
        device.work()
    federation.work_off()
    work = pi.take()
    newest = federation.round(job)
    assert work["task"] == "evaluate"
    assert work["global"]["sha256"] == newest.global_artefact_id != newest.base_artefact_id
    assert pi.download(work["global"]["sha256"]).status_code == 200
    assert pi.download(str(newest.base_artefact_id)).status_code == 404
