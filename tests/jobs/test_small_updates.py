"""Updates and models that travel within messages."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from tests.device import TRAINED, Pi, digest_of
from tests.federation import Federation
from webapp.jobs.artefacts.store import open_artefact, small_bytes, storage
from webapp.jobs.models import Artefact, Assignment

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]


def _report(pi: Pi, work: dict[str, Any], content: bytes, **changes: Any) -> Any:
    body = {
        "update": digest_of(content),
        "examples": pi.examples,
        "metrics": TRAINED,
        "data": base64.b64encode(content).decode(),
        **changes,
    }
    return pi.act(work["assignment"], "report", body)


@pytest.fixture
def pi(federation: Federation) -> Pi:
    pi = federation.device("pi-a")
    federation.launch(evaluation={"every": 0, "initial": False})
    return pi


def test_small_model_travels_within_the_answer(pi: Pi) -> None:
    work = pi.take()
    data = base64.b64decode(work["global"]["data"])
    assert hashlib.sha256(data).hexdigest() == work["global"]["sha256"]
    assert len(data) == work["global"]["size_bytes"]


def test_unreadable_model_is_left_to_the_download(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    """The work begins all the same."""
    pi = federation.device("pi-b")
    job = federation.launch(evaluation={"every": 0, "initial": False})
    model = federation.round(job).base_artefact
    storage().delete(Artefact.path_of(model.sha256))
    small_bytes.cache_clear()
    work = pi.take()
    assert work["global"] == {"sha256": model.sha256, "size_bytes": model.size_bytes}
    assert model.sha256 in caplog.text


def test_small_update_within_a_report_ends_the_round(federation: Federation, pi: Pi) -> None:
    work = pi.take()
    content = pi.update_for(work)
    for _ in range(2):  # a report may come twice
        assert _report(pi, work, content).status_code == 200
    stored = Artefact.objects.get(pk=digest_of(content))
    assert (stored.size_bytes, stored.origin) == (len(content), "device:pi-a")
    with open_artefact(stored) as source:
        assert source.read() == content
    federation.work_off()
    assert federation.job is not None
    ended = federation.round(federation.job)
    assert ended.global_artefact is not None
    assert ended.global_artefact != ended.base_artefact


def test_wrong_bytes_within_a_report_are_refused(pi: Pi) -> None:
    work = pi.take()
    content = pi.update_for(work)
    foreign = pi.update_for(work, meta={"round": "7"})
    long = base64.b64encode(b"x" * 32_769).decode()
    refusals = [
        (_report(pi, work, content, update="0" * 64), 422, "another SHA-256"),
        (_report(pi, work, foreign), 422, "foreign update"),
        (_report(pi, work, b"no frame"), 422, "no safetensors"),
        (_report(pi, work, content, data=long), 400, "data"),
    ]
    for answer, status, words in refusals:
        assert answer.status_code == status
        assert words in answer.json()["detail"]
    assert Assignment.objects.get(pk=work["assignment"]).update_artefact is None
    assert not Artefact.objects.filter(kind="update").exists()
    assert _report(pi, work, content).status_code == 200


def test_update_for_another_devices_assignment_is_refused(federation: Federation) -> None:
    first, second = federation.devices("pi-a", "pi-b")
    federation.launch(evaluation={"every": 0, "initial": False})
    work = first.take()
    second.take()
    content = second.update_for(work)
    assert _report(second, work, content).status_code == 404
    assert not Artefact.objects.filter(pk=digest_of(content)).exists()
