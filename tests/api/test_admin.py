"""The Django admin: pages, actions, permissions, and the first admin."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.api.conftest import add_device, add_job
from webapp.accounts.models import PersonToken, Role, User
from webapp.devices.models import Device
from webapp.jobs.models import Assignment, Job

OURS = [
    model
    for label in ("accounts", "devices", "jobs", "telemetry")
    for model in apps.get_app_config(label).get_models()
]
BACKEND = "django.contrib.auth.backends.ModelBackend"


def staff(role: str, **more: Any) -> Client:
    user = User.objects.create_user(f"staff-{role}", role=role, is_staff=True, **more)
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client


@pytest.fixture
def root(db: None) -> Client:
    return staff("admin", is_superuser=True)


def address(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def test_every_model_is_registered() -> None:
    assert [model for model in OURS if not admin.site.is_registered(model)] == []


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_pages_of_a_model(root: Client, fleet: Any, model: Any) -> None:
    listed = root.get(address(model, "changelist"), {"q": "pi"})
    assert listed.status_code == 200
    assert "unsafe" not in listed["Content-Security-Policy"]
    row = model.objects.first()
    page = root.get(address(model, "change", quote(row.pk)))
    assert page.status_code == 200
    if hasattr(row, "token_hash"):
        assert row.token_hash not in page.content.decode()


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_admin_cannot_add_rows(root: Client, model: Any) -> None:
    status = 200 if model is User else 403
    assert root.get(address(model, "add")).status_code == status


@pytest.mark.parametrize("model", [Job, Assignment, Device], ids=lambda model: model.__name__)
def test_admin_list_queries_are_constant(root: Client, model: Any) -> None:
    counts = []
    for expected in (2, 12):
        for number in range(Job.objects.count(), expected):
            add_job([add_device(f"pi-{number}")], f"job {number}")
        with CaptureQueriesContext(connection) as queries:
            assert root.get(address(model, "changelist")).status_code == 200
        counts.append(len(queries))
    assert counts[1] <= counts[0]


def act(client: Client, model: Any, action: str, *rows: Any) -> str:
    chosen = [str(row.pk) for row in rows]
    data = {"action": action, "index": 0, "_selected_action": chosen}
    answer = client.post(address(model, "changelist"), data, follow=True)
    return "; ".join(str(message) for message in answer.context["messages"])


def test_admin_actions_move_jobs(root: Client) -> None:
    device = add_device("pi")
    running, done = add_job([device], "one"), add_job([device], "two", "completed")
    result = act(root, Job, "pause", running, done)
    assert "one: paused" in result and "two: a completed job cannot pause" in result
    assert "one: resumed" in act(root, Job, "resume", running)
    assert "cannot retry" in act(root, Job, "retry", running)
    assert "one: cancelled" in act(root, Job, "cancel", running)
    running.refresh_from_db()
    assert running.phase == "cancelled"


def test_devices_are_revoked(root: Client, enrolled_device: Any) -> None:
    device = enrolled_device("pi").device
    assert "pi was revoked" in act(root, Device, "revoke", device)
    assert "has been revoked already" in act(root, Device, "revoke", device)
    device.refresh_from_db()
    assert device.presence == "revoked"


def test_phases_are_not_edited(root: Client, fleet: Any) -> None:
    job = fleet["job"]
    root.post(address(Job, "change", job.pk), {"phase": "completed", "name": "x"})
    job.refresh_from_db()
    assert (job.phase, job.name) == ("running", "a job")


def test_roles_hold_in_the_admin(fleet: Any, people: Any) -> None:
    viewer, operator = staff("viewer"), staff("operator")
    job, device = fleet["job"], fleet["devices"][0]
    assert viewer.get(address(Job, "changelist")).status_code == 200
    act(viewer, Job, "cancel", job)
    act(operator, Device, "revoke", device)
    job.refresh_from_db()
    device.refresh_from_db()
    assert job.phase == "running" and device.revoked_at is None
    assert "a job: paused" in act(operator, Job, "pause", job)
    for model in (User, PersonToken):
        assert operator.get(address(model, "changelist")).status_code == 403
    plain = Client()
    plain.force_login(people["admin"], backend=BACKEND)
    assert plain.get("/admin/").status_code == 302


def test_admin_does_not_become_superuser_by_itself(db: None) -> None:
    client = staff("admin")
    user = User.objects.get(username="staff-admin")
    root = User.objects.create_superuser("root", password="x")
    change = {"username": user.username, "role": "admin", "is_active": "on", "is_staff": "on"}
    client.post(address(User, "change", user.pk), {**change, "is_superuser": "on"})
    user.refresh_from_db()
    assert not user.is_superuser
    assert client.post(address(User, "change", root.pk), {}).status_code == 403
    password = f"/admin/accounts/user/{root.pk}/password/"
    assert client.get(password).status_code == 403


def test_first_admin(db: None, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_ADMIN_PASSWORD", "correct-horse-9")
    for _ in range(2):
        call_command("ensure_admin", stdout=io.StringIO())
    root = User.objects.get()
    assert root.check_password("correct-horse-9") and root.at_least(Role.ADMIN)


def test_token_from_the_command_line(viewer: User, client: Client) -> None:
    out = io.StringIO()
    call_command("create_token", "viewer", "--label", "cron", stdout=out)
    headers = {"Authorization": f"Token {out.getvalue().strip()}"}
    assert client.get("/api/v1/me/", headers=headers).json()["username"] == "viewer"
    with pytest.raises(CommandError, match="no active user is called"):
        call_command("create_token", "ghost")
