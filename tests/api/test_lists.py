"""Lists: pagination, filters, order, and a constant number of queries."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.api.conftest import add_device, add_job
from webapp.devices.models import Device, Enrolment
from webapp.jobs.models import Event, Job, Participant

pytestmark = pytest.mark.postgresql

LISTS = [
    "devices/",
    "enrolments/",
    "jobs/",
    "rounds/",
    "assignments/",
    "artefacts/",
    "events/",
    "tokens/",
    "users/",
]


def ids(answer: Any) -> list[Any]:
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_pages(viewer_api: Any) -> None:
    for number in range(7):
        add_device(f"pi-{number}")
    first = viewer_api.get("/api/v1/devices/?page_size=3").json()
    assert first["count"] == 7 and len(first["results"]) == 3 and first["previous"] is None
    last = viewer_api.get("/api/v1/devices/?page_size=3&page=3").json()
    assert [row["name"] for row in last["results"]] == ["pi-6"] and last["next"] is None


@pytest.mark.parametrize("page", ["9", "0", "-1", "x", "9" * 5000, "1e9"])
def test_missing_page_is_404(viewer_api: Any, page: str) -> None:
    answer = viewer_api.get("/api/v1/devices/", {"page": page})
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"


def test_page_has_a_limit(viewer_api: Any) -> None:
    Device.objects.bulk_create(Device(name=f"pi-{number}") for number in range(505))
    assert len(viewer_api.get("/api/v1/devices/?page_size=9999").json()["results"]) == 500


def test_job_of_many_devices_is_shown(viewer_api: Any) -> None:
    """More than the 1000 operators that SQLite allows in an expression."""
    job, count = add_job([]), 1100
    devices = Device.objects.bulk_create(Device(name=f"pi-{n}") for n in range(count))
    Participant.objects.bulk_create(
        Participant(job=job, device=device, slot=slot, dataset="law", examples=40)
        for slot, device in enumerate(devices)
    )
    shown = viewer_api.get(f"/api/v1/jobs/{job.pk}/").json()
    assert len(shown["participants"]) == count


def test_devices_are_filtered_and_ordered(viewer_api: Any) -> None:
    kitchen, porch = add_device("pi-kitchen"), add_device("pi-porch")
    Device.objects.filter(pk=porch.pk).update(last_seen_at=None, revoked_at=timezone.now())
    porch.datasets.update(domain="travel")
    get = lambda query: ids(viewer_api.get(f"/api/v1/devices/?{query}"))  # noqa: E731
    assert get("name=KITCH") == [kitchen.pk]
    assert get("online=true") == [kitchen.pk]
    assert get("online=false") == [porch.pk]
    assert get("revoked=true") == [porch.pk]
    assert get("revoked=false") == [kitchen.pk]
    assert get("domain=travel") == [porch.pk]
    assert get("dataset=law&ordering=-name") == [porch.pk, kitchen.pk]
    assert get("role=aggregator") == []


def test_jobs_are_filtered_and_ordered(viewer_api: Any, people: Any) -> None:
    device = add_device("pi")
    old, new = add_job([device], "old", "completed"), add_job([device], "new", "running")
    Job.objects.filter(pk=old.pk).update(created_by=people["operator"])
    get = lambda query: ids(viewer_api.get(f"/api/v1/jobs/?{query}"))  # noqa: E731
    assert get("") == [str(new.pk), str(old.pk)]
    assert get("phase=completed") == [str(old.pk)]
    assert get("phase=completed&phase=running&ordering=created_at") == [str(old.pk), str(new.pk)]
    assert get("created_by=operator") == [str(old.pk)]
    assert get("name=EW") == [str(new.pk)]
    assert get("created_after=2999-01-01T00:00:00Z") == []
    assert get("created_after=2999-01-01T00:00:00%2B23:38") == []  # beyond PostgreSQL's own range
    row = viewer_api.get("/api/v1/jobs/").json()["results"][0]
    assert row["rounds"] == 2 and row["last_closed_round"] == 1


def test_rows_of_a_job(viewer_api: Any) -> None:
    first, second = add_device("a"), add_device("b")
    job, other = add_job([first, second]), add_job([first])
    get = lambda path: viewer_api.get(f"/api/v1/{path}").json()  # noqa: E731
    assert get(f"rounds/?job={job.pk}")["count"] == 1
    assert get(f"assignments/?job={job.pk}")["count"] == 2
    assert get(f"assignments/?job={job.pk}&device={second.pk}")["count"] == 1
    assert get(f"assignments/?phase=folded&task=train&round={other.rounds.get().pk}")["count"] == 1
    assert get(f"jobs/{job.pk}/events/?after=1")["results"][0]["text"] == "line 2"
    assert get(f"events/?job={job.pk}&ordering=seq")["results"][0]["seq"] == 1
    assert get("events/?fleet=true")["count"] == Event.objects.filter(job=None).count()
    assert get(f"devices/{first.pk}/samples/?after=1")["results"][0]["seq"] == 2


def test_enrolments_by_state(viewer_api: Any, fleet: Any) -> None:
    Enrolment.objects.create(token_hash="old", expires_at=timezone.now())
    used = Enrolment.objects.create(
        token_hash="used", expires_at=timezone.now(), used_at=timezone.now()
    )
    get = lambda state: ids(viewer_api.get(f"/api/v1/enrolments/?state={state}"))  # noqa: E731
    assert get("waiting") == [fleet["enrolment"].pk]
    assert get("used") == [used.pk]
    assert len(get("expired")) == 1


@pytest.mark.parametrize(
    "query",
    [
        "devices/?role=boss",
        "devices/?ordering=colour",
        "devices/?name=%00",
        "jobs/?phase=flying",
        "jobs/?created_after=yesterday",
        "jobs/?created_after=0001-01-01T00:00:00%2B14:00",
        "rounds/?job=7",
        "assignments/?device=1e999999999",
        "assignments/?device=99999999999999999999",
        "measurements/?metric=loss",
        "measurements/?metric=mood&device=1",
        "measurements/?device=1",
        "measurements/?metric=loss&device=1&points=1",
    ],
)
def test_invalid_filter_is_400(viewer_api: Any, query: str) -> None:
    answer = viewer_api.get(f"/api/v1/{query}")
    assert answer.status_code == 400
    assert answer.json()["faults"][0]["message"]


@pytest.mark.parametrize("query", ["rounds/?number=9999999999", "events/?after=-1"])
def test_huge_number_matches_no_row(viewer_api: Any, query: str) -> None:
    assert viewer_api.get(f"/api/v1/{query}").status_code == 200


def _grow(number: int) -> None:
    devices = [add_device(f"pi-{number}-{index}") for index in range(3)]
    add_job(devices, f"job {number}")
    Enrolment.objects.create(token_hash=f"{number}", expires_at=timezone.now(), device=devices[0])


@pytest.mark.parametrize("path", LISTS)
def test_list_queries_are_constant(admin_api: Any, path: str) -> None:
    counts = []
    for expected in (3, 30):
        for number in range(Job.objects.count(), expected):
            _grow(number)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert admin_api.get(f"/api/v1/{path}?page_size=100").status_code == 200
        counts.append(len(queries))
    # The token's last use is noted by the first call only, at most once a minute.
    assert counts[1] <= counts[0]
