"""Resumable uploads: they continue, arrive once, and bad requests do no harm."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone

from tests.device import Pi, digest_of
from tests.device_api.uploads import Work, assert_stored, offset, send
from tests.federation import Federation, phase_of
from webapp.jobs.artefacts.partial_uploads import PartialUpload, received_bytes
from webapp.jobs.artefacts.store import incoming_dir, remove_leftovers, storage
from webapp.jobs.models import Artefact, Assignment


def test_upload_in_one_request(pi: Pi, work: Work, content: bytes) -> None:
    answer = pi.upload(work["assignment"], content)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer["Upload-Offset"] == str(len(content))
    assert answer["Tus-Resumable"] == "1.0.0"
    assert_stored(work, content)
    assert Assignment.objects.get(pk=work["assignment"]).bytes_up == len(content)


def test_upload_in_fifty_pieces(pi: Pi, work: Work, content: bytes) -> None:
    ends = [len(content) * number // 50 for number in range(51)]
    for start, stop in pairwise(ends):
        answer = send(pi, work, content, start, stop)
        assert (answer.status_code, answer["Upload-Offset"]) == (204, str(stop))
    assert_stored(work, content)


def test_interrupted_upload_resumes(pi: Pi, work: Work, content: bytes) -> None:
    assert offset(pi, work, content) == 0
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(len(content)),
        "Upload-Offset": "0",
        "Upload-Length": str(len(content)),
    }
    with pytest.raises(IndexError):  # nobody hears the answer
        pi.patch(work["assignment"], digest_of(content), [content[:1000]], headers, hangs_up=True)
    assert offset(pi, work, content) == 1000
    assert phase_of(work["assignment"]) == "uploading"
    assert pi.upload(work["assignment"], content, offset=1000).status_code == 204
    assert_stored(work, content)
    assert Assignment.objects.get(pk=work["assignment"]).bytes_up == len(content)


def test_wrong_offset_answers_the_right_one(pi: Pi, work: Work, content: bytes) -> None:
    send(pi, work, content, 0, 1000)
    for start in (0, 999, 1001):
        answer = send(pi, work, content, start, 1500)
        assert (answer.status_code, answer["Upload-Offset"]) == (409, "1000")
        assert "1000 bytes are here" in answer.json()["detail"]
    assert (
        received_bytes(Assignment.objects.get(pk=work["assignment"]).pk, digest_of(content)) == 1000
    )
    assert pi.upload(work["assignment"], content, offset=1000).status_code == 204


def test_known_update_is_not_sent_again(
    federation: Federation, pi: Pi, work: Work, content: bytes
) -> None:
    """Not even in the next attempt of the assignment; another device sends it itself."""
    pi.upload(work["assignment"], content)
    Assignment.objects.filter(pk=work["assignment"]).update(phase="expired")
    first = Assignment.objects.get(pk=work["assignment"])
    again = Assignment.objects.create(
        round=first.round, device=first.device, slot=first.slot, task="train", attempt=2,
        phase="accepted", lease_until=timezone.now(),
    )  # fmt: skip
    later = {"assignment": str(again.pk)}
    answer = pi.there(later["assignment"], digest_of(content))
    assert answer["Upload-Offset"] == answer["Upload-Length"] == str(len(content))
    assert send(pi, later, content, len(content), len(content)).status_code == 204
    again.refresh_from_db()
    assert (again.update_artefact_id, again.bytes_up) == (digest_of(content), 0)
    porch = federation.pis[1]
    assert offset(porch, porch.take(), content) == 0


def test_removed_update_is_sent_again(pi: Pi, work: Work, content: bytes) -> None:
    pi.upload(work["assignment"], content)
    row = Assignment.objects.get(pk=work["assignment"])
    storage().delete(Artefact.path_of(digest_of(content)))
    Assignment.objects.filter(pk=row.pk).update(update_artefact=None)
    former = Assignment.objects.create(
        round=row.round, device=row.device, slot=row.slot, task="train", attempt=2,
        phase="expired", lease_until=timezone.now(), update_artefact_id=digest_of(content),
    )  # fmt: skip
    answer = send(pi, work, content, len(content), len(content))
    assert (answer.status_code, answer["Upload-Offset"]) == (409, "0")
    former.update_artefact.removed_at = timezone.now()
    former.update_artefact.save()
    assert offset(pi, work, content) == 0
    assert pi.upload(work["assignment"], content).status_code == 204
    assert Artefact.objects.get(pk=digest_of(content)).removed_at is None
    assert storage().exists(Artefact.path_of(digest_of(content)))


def test_update_of_another_round_is_refused(pi: Pi, work: Work) -> None:
    content = pi.update_for(work)
    pi.upload(work["assignment"], content)
    row = Assignment.objects.get(pk=work["assignment"])
    row.round.number = 2
    row.round.save()
    Assignment.objects.filter(pk=row.pk).update(update_artefact=None)
    Assignment.objects.create(
        round=row.round, device=row.device, slot=row.slot, task="train", attempt=2,
        phase="expired", lease_until=timezone.now(), update_artefact_id=digest_of(content),
    )  # fmt: skip
    answer = send(pi, work, content, len(content), len(content))
    assert answer.status_code == 422
    assert "round is '1', not '2'" in answer.json()["detail"]


def test_complete_upload_survives_server_death(pi: Pi, work: Work, content: bytes) -> None:
    """An empty piece has it finish."""
    part = PartialUpload(Assignment.objects.get(pk=work["assignment"]).pk, digest_of(content))
    part.append(content)
    part.close()
    assert offset(pi, work, content) == len(content)
    assert send(pi, work, content, len(content), len(content)).status_code == 204
    assert_stored(work, content)


NONSENSE: dict[str, tuple[dict[str, str], int, str]] = {
    "no offset": ({"Upload-Offset": ""}, 400, "give Upload-Offset as a whole number"),
    "no length": ({"Upload-Length": "-1"}, 400, "give Upload-Length as a whole number"),
    "an offset too large": ({"Upload-Offset": "9" * 30}, 400, "whole number"),
    "another type": ({"Content-Type": "text/plain"}, 415, "application/offset+octet-stream"),
    "beyond the end": ({"Upload-Offset": str(2**40)}, 416, "beyond the end"),
    "more than the length": ({"Upload-Length": "5"}, 413, "more than the 5 bytes"),
}


def test_invalid_headers_are_refused(pi: Pi, work: Work, content: bytes, subtests: Any) -> None:
    for case, (headers, status, text) in NONSENSE.items():
        with subtests.test(case):
            answer = send(pi, work, content, 0, 1000, **headers)
            assert answer.status_code == status
            assert text in answer.json()["detail"]
    assert list(incoming_dir().iterdir()) == []
    assert phase_of(work["assignment"]) == "accepted"


def test_extra_bytes_are_413(pi: Pi, work: Work, content: bytes) -> None:
    """A body without Content-Length that does not end is cut off, and thrown away."""
    headers = {
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "0",
        "Upload-Length": "100000",
    }
    answer = pi.patch(work["assignment"], digest_of(content), [bytes(65_536)] * 500, headers)
    assert (answer.status_code, answer["Connection"]) == (413, "close")
    assert list(incoming_dir().iterdir()) == []


def test_other_methods(pi: Pi, work: Work, content: bytes) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        answer = pi._call(method, work["assignment"], digest_of(content), {}, b"")
        assert (answer.status_code, answer["Allow"]) == (405, "HEAD, PATCH")


def test_missing_token_is_refused_unread(pi: Pi, work: Work, content: bytes) -> None:
    for token in ("", "Device", "Device nonsense", "Token nonsense"):
        answer = send(pi, work, content, 0, 1000, Authorization=token)
        assert answer.status_code == 401
    pi.enrolled.device.revoked_at = timezone.now()
    pi.enrolled.device.save()
    assert send(pi, work, content, 0, 1000).status_code == 401
    assert list(incoming_dir().iterdir()) == []


@pytest.mark.postgresql
def test_abandoned_uploads_are_removed(pi: Pi, work: Work, content: bytes) -> None:
    send(pi, work, content, 0, 1000)
    assert remove_leftovers() == 0, "the assignment is at work"
    Assignment.objects.filter(pk=work["assignment"]).update(phase="expired")
    assert remove_leftovers() == 2
    assert list(incoming_dir().iterdir()) == []


def test_new_update_replaces_partial_one(pi: Pi, work: Work) -> None:
    first, second = pi.update_for(work, number=1.0), pi.update_for(work, number=2.0)
    send(pi, work, first, 0, 1000)
    assert pi.upload(work["assignment"], second).status_code == 204
    assert offset(pi, work, first) == 0
    assert_stored(work, second)
