"""Enrolment and revocation pages."""

from __future__ import annotations

import html
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.web import factories
from webapp.devices.models import Device, Enrolment, hashed
from webapp.pages.devices.forms import enrol_command

FORM = {
    "name": "pi-kitchen",
    "role": "trainer",
    "valid_for": "1h",
    "dataset": "law=~/my file.jsonl",
}


def test_enrolment_shows_a_command_that_works_once(ada: Client) -> None:
    text = html.unescape(ada.post(reverse("enrol"), FORM).content.decode())
    command = text.split('<pre id="enrol-command">')[1].split("</pre>")[0]
    enrolment = Enrolment.objects.get()
    token = command.split("--token ")[1].split(" ")[0]
    assert hashed(token) == enrolment.token_hash
    assert command.startswith("python -m workers.agent enroll --server http")
    assert command.endswith("--name pi-kitchen --dataset 'law=~/my file.jsonl'")
    assert "python -m workers.agent run" in text
    assert token not in ada.get(reverse("enrol")).content.decode()


def test_enrol_command_is_quoted_for_a_shell() -> None:
    command = enrol_command("http://x", "t", "a; rm -rf /", "")
    assert "'a; rm -rf /'" in command


def test_aggregator_enrols_without_dataset(ada: Client) -> None:
    sent = {"name": "hub", "role": "aggregator", "valid_for": "1d", "dataset": ""}
    text = ada.post(reverse("enrol"), sent).content.decode()
    assert "--name hub</pre>" in text
    assert "--dataset" not in text
    trains = ada.post(reverse("enrol"), {**sent, "name": "pi", "role": "both"}).content.decode()
    assert "--name pi --dataset NAME=PATH</pre>" in trains
    assert "Replace NAME=PATH with" in trains
    hub = factories.make_device("folds", role="aggregator")
    hub.datasets.all().delete()
    page = ada.get(reverse("device", args=[hub.pk])).content.decode()
    assert "No data needed" in page
    assert "No dataset yet" not in page


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": ""}, "Enter a name for the machine"),
        ({"name": "$(reboot)"}, "begin with a letter or digit"),
        ({"name": "taken"}, "already enrolled"),
        ({"dataset": "nothing"}, "NAME=PATH"),
        ({"role": "king"}, "not one of the available choices"),
    ],
)
def test_form_errors_are_next_to_their_fields(
    ada: Client, change: dict[str, str], error: str
) -> None:
    factories.make_device("taken")
    text = ada.post(reverse("enrol"), FORM | change).content.decode()
    assert error in html.unescape(text)
    assert 'aria-invalid="true"' in text
    assert not Enrolment.objects.exists()


def test_enrolment_state_follows_the_device(ada: Client) -> None:
    enrolment = factories.make_enrolment("pi-kitchen")
    address = reverse("enrolment", args=[enrolment.pk])
    assert ada.get(address, {"was": "waiting"}).status_code == 204
    device = factories.make_device("pi-kitchen", seen_s_ago=None)
    Enrolment.objects.filter(pk=enrolment.pk).update(used_at=timezone.now(), device=device)
    text = ada.get(address, {"was": "waiting"}).content.decode()
    assert "is enrolled" in text
    assert "hx-trigger" in text
    Device.objects.filter(pk=device.pk).update(last_seen_at=timezone.now())
    text = ada.get(address, {"was": "used"}).content.decode()
    assert "Its agent is running" in text
    assert "hx-trigger" not in text


def test_expired_enrolment_is_reported(ada: Client) -> None:
    enrolment = factories.make_enrolment("late")
    Enrolment.objects.filter(pk=enrolment.pk).update(expires_at=timezone.now())
    address = reverse("enrolment", args=[enrolment.pk])
    assert "expired" in ada.get(address, {"was": "waiting"}).content.decode()


@pytest.mark.parametrize(("role", "code"), [("viewer", 403), ("operator", 403), ("admin", 302)])
def test_only_admins_revoke(as_role: Callable[[str], Client], role: str, code: int) -> None:
    device = factories.make_device("pi")
    client = as_role(role)
    assert client.post(reverse("device-revoke", args=[device.pk])).status_code == code
    device.refresh_from_db()
    assert (device.revoked_at is not None) == (code == 302)


def test_selected_devices_are_revoked(ada: Client) -> None:
    devices = factories.make_fleet(3)
    selected = [str(device.pk) for device in devices[:2]]
    ada.post(reverse("devices-revoke"), {"device": [*selected, "nonsense", "999999"]})
    assert Device.objects.filter(revoked_at=None).count() == 1
    table = ada.get(reverse("devices")).content.decode().partition("<tbody>")[2]
    assert devices[0].name not in table.partition("</tbody>")[0]


def test_revoking_requires_post(ada: Client) -> None:
    device = factories.make_device("pi")
    assert ada.get(reverse("device-revoke", args=[device.pk])).status_code == 405
