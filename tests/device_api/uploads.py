"""Uploads in pieces of a device in its first round of training."""

from __future__ import annotations

from typing import Any

import pytest

from tests.device import Pi, digest_of
from tests.federation import Federation
from webapp.jobs.artefacts.store import incoming_dir
from webapp.jobs.models import Assignment

Work = dict[str, Any]


@pytest.fixture
def pi(federation: Federation) -> Pi:
    """A device that was offered the training of round 1."""
    kitchen, _ = federation.devices("pi-kitchen", "pi-porch")
    federation.started()
    return kitchen


@pytest.fixture
def work(pi: Pi) -> Work:
    return pi.take()


@pytest.fixture
def content(pi: Pi, work: Work) -> bytes:
    return pi.update_for(work)


def send(pi: Pi, work: Work, content: bytes, start: int, stop: int, **changes: str) -> Any:
    """Send bytes ``start`` to ``stop`` in one PATCH."""
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(stop - start),
        "Upload-Offset": str(start),
        "Upload-Length": str(len(content)),
        **changes,
    }
    return pi.patch(work["assignment"], digest_of(content), content[start:stop], headers)


def offset(pi: Pi, work: Work, content: bytes) -> int:
    answer = pi.there(work["assignment"], digest_of(content))
    assert answer.status_code == 200
    assert answer["Tus-Resumable"] == "1.0.0"
    assert answer["Cache-Control"] == "no-store"
    return int(answer["Upload-Offset"])


def assert_stored(work: Work, content: bytes) -> None:
    row = Assignment.objects.get(pk=work["assignment"])
    assert (row.phase, row.update_artefact_id) == ("uploading", digest_of(content))
    assert list(incoming_dir().iterdir()) == []
