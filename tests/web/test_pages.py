"""Every page: access by role, constant number of queries, no inline scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.template import engines
from django.test import Client
from django.urls import reverse

from tests.web import factories
from webapp.devices.models import Device
from webapp.jobs.models import Job

pytestmark = pytest.mark.postgresql

PAGES = ("overview", "devices", "jobs", "profile", "tokens")
MAX_QUERIES = 16


def addresses(job: Job) -> list[str]:
    device = job.participants.first()
    assert device is not None
    return [
        *map(reverse, PAGES),
        reverse("job", args=[job.pk]),
        reverse("device", args=[device.device_id]),
    ]


def test_viewer_can_open_every_page(as_role: Callable[[str], Client], job: Job) -> None:
    client = as_role("viewer")
    for address in addresses(job):
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert "<h1>" in answer.content.decode()


def test_empty_site_shows_first_steps(ada: Client) -> None:
    text = ada.get("/").content.decode()
    assert "Enrol a device" in text
    assert "Launch a job" in text
    assert "No devices yet" in ada.get(reverse("devices")).content.decode()
    assert "No jobs yet" in ada.get(reverse("jobs")).content.decode()


def test_anonymous_users_are_sent_to_login(db: None, job: Job, client: Client) -> None:
    for address in [*addresses(job), reverse("job-new"), reverse("enrol"), reverse("users")]:
        answer = client.get(address)
        assert answer.status_code == 302, address
        assert answer["Location"].startswith("/login/"), address


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_pages_require_their_role(as_role: Callable[[str], Client], role: str) -> None:
    client = as_role(role)
    may_launch = role != "viewer"
    assert client.get(reverse("job-new")).status_code == (200 if may_launch else 403)
    assert client.get(reverse("enrol")).status_code == (200 if may_launch else 403)
    assert client.get(reverse("users")).status_code == (200 if role == "admin" else 403)


def test_refusal_names_the_missing_role(as_role: Callable[[str], Client]) -> None:
    answer = as_role("viewer").get(reverse("job-new"))
    assert "role operator" in answer.content.decode()


def test_viewers_see_no_forbidden_buttons(as_role: Callable[[str], Client], job: Job) -> None:
    text = as_role("viewer").get(reverse("job", args=[job.pk])).content.decode()
    assert "data-move" not in text
    assert "Duplicate" not in text


def test_unknown_ids_are_404(ada: Client) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    for address in ("/nope/", "/devices/99/", f"/jobs/{nobody}/", f"/jobs/new/?from={nobody}"):
        assert ada.get(address).status_code == 404
    assert ada.get("/jobs/new/?from=nonsense").status_code == 404


@pytest.mark.parametrize("name", PAGES)
def test_queries_do_not_grow_with_rows(
    ada: Client, django_assert_max_num_queries: Any, name: str
) -> None:
    for number in range(40):
        factories.make_device(f"device-{number:03d}", number)
    devices = list(Device.objects.all()[:10])
    for number in range(12):
        factories.running_job(devices[:3], rounds=1, samples=0, name=f"job {number}")
    with django_assert_max_num_queries(MAX_QUERIES):
        assert ada.get(reverse(name)).status_code == 200


def test_queries_of_a_job_do_not_grow_with_its_rounds(
    ada: Client, fleet: list[Device], django_assert_max_num_queries: Any
) -> None:
    job = factories.running_job(
        fleet,
        rounds=12,
        samples=0,
        name="long",
    )
    with django_assert_max_num_queries(MAX_QUERIES):
        assert ada.get(reverse("job", args=[job.pk])).status_code == 200


def test_filter_sort_and_pages_of_devices(ada: Client) -> None:
    for number in range(60):
        factories.make_device(f"device-{number:03d}", number, seen_s_ago=None if number % 2 else 1)
    listed = reverse("devices")
    assert "1 of 2" in ada.get(listed).content.decode()
    matches = ada.get(listed, {"q": "device-007"}).content.decode()
    assert "device-007" in matches
    assert "device-008" not in matches
    never = ada.get(listed, {"presence": "never seen"}).content.decode()
    assert "device-001" in never
    assert "device-002" not in never
    strongest = ada.get(listed, {"sort": "peak"}).content.decode()
    assert strongest.index("device-001") < strongest.index("device-002")
    assert ada.get(listed, {"q": "no such thing"}).content.decode().count("No matching devices")
    assert ada.get(listed, {"page": "99", "sort": "'; drop"}).status_code == 200


def test_hostile_profile_does_not_break_a_page(ada: Client) -> None:
    device = factories.make_device("odd")
    kind = "<script>alert(1)</script>"
    device.profile = {"peak_flops": "lots", "memory_bytes": "<b>", "kind": kind}
    device.save()
    for address in (reverse("devices"), reverse("device", args=[device.pk]), reverse("job-new")):
        answer = ada.get(address)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.content.decode()


def test_templates_name_static_files_that_exist() -> None:
    loader = engines["django"].engine.template_loaders[0]  # type: ignore[attr-defined]
    names = set()
    for folder in loader.get_dirs():
        for path in folder.rglob("*.html"):
            parts = path.read_text().split("{% static '")[1:]
            names |= {part.split("'")[0] for part in parts}
    assert names
    assert not [name for name in names if finders.find(name) is None]


def test_pages_carry_no_inline_script_or_style(ada: Client, job: Job) -> None:
    for address in [*addresses(job), reverse("job-new"), reverse("enrol"), reverse("users")]:
        text = ada.get(address).content.decode()
        assert " style=" not in text, address
        assert "<style" not in text, address
        assert " onclick=" not in text, address
        for tag in text.split("<script")[1:]:
            assert " src=" in tag[:200] or "application/json" in tag[:200], address
