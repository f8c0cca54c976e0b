"""Letting devices in and out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from fedcore.errors import EdgewiseError
from webapp.accounts.models import User
from webapp.common.task_queue import BROKER_ERRORS
from webapp.common.wake import wake_device
from webapp.devices import broker_users
from webapp.devices.models import (
    Credential,
    Dataset,
    Device,
    DeviceRole,
    Enrolment,
    hashed,
    new_secret,
)
from webapp.jobs.lifecycle.event_log import fleet_event
from webapp.jobs.lifecycle.transitions import expire_assignments
from webapp.jobs.models import EventLevel

PREFIX = "ew-"


class EnrolmentRefused(EdgewiseError):
    """The token or the name does not let this machine in. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class BrokerDown(EdgewiseError):
    """The devices' broker could not be told."""

    retryable = True


@dataclass(frozen=True)
class Admission:
    """What a device gets at its enrolment; the secrets are stored nowhere in the clear."""

    device: Device
    api_token: str
    broker_url: str


def create_enrolment(
    user: User, name: str, role: str, valid_for: timedelta
) -> tuple[Enrolment, str]:
    """Make a one-time token. Returns the row and the token, which is shown once."""
    token = PREFIX + new_secret()
    enrolment = Enrolment.objects.create(
        token_hash=hashed(token),
        name=name,
        role=DeviceRole(role),
        expires_at=timezone.now() + valid_for,
        created_by=user,
    )
    return enrolment, token


def enrol(
    token: str,
    name: str,
    agent_version: str,
    profile: dict[str, Any],
    datasets: list[dict[str, Any]],
) -> Admission:
    """Exchange a one-time token for a credential.

    Raises EnrolmentRefused with 403 for a token that is unknown, used or expired, 400 without a
    name, 409 for a name that is taken; BrokerDown leaves the token unused.
    """
    with transaction.atomic():
        enrolment = _claim(token)
        device = _new_device(enrolment.name or name, enrolment.role)
        Device.objects.filter(pk=device.pk).update(profile=profile, agent_version=agent_version)
        replace_datasets(device, datasets)
        admission, credential = _credential(device)
        Enrolment.objects.filter(pk=enrolment.pk).update(device=device)
        fleet_event(f"{device.name} enrolled", device=device)
        try:
            broker_users.set_user(device.pk, credential.broker_password_hash)
        except BROKER_ERRORS as error:
            text = "the devices' broker does not answer; start it and enrol again"
            raise BrokerDown(f"{text} ({error})") from error
    wake_device(device.pk)
    return admission


def _claim(token: str) -> Enrolment:
    now = timezone.now()
    waiting = Enrolment.objects.filter(token_hash=hashed(token), used_at=None, expires_at__gt=now)
    if waiting.update(used_at=now) == 1:
        return Enrolment.objects.get(token_hash=hashed(token))
    known = Enrolment.objects.filter(token_hash=hashed(token)).first()
    if known is None:
        raise EnrolmentRefused("this token is unknown; copy the whole command again", 403)
    text = "has been used" if known.used_at else f"expired at {known.expires_at:%Y-%m-%d %H:%M} UTC"
    raise EnrolmentRefused(f"this token {text}; make a new one on the page 'Enrol a device'", 403)


def _new_device(name: str, role: str) -> Device:
    if not name:
        raise EnrolmentRefused("give the device a name with --name", 400)
    held = Device.objects.select_for_update().filter(name=name).first()
    if held is not None and held.revoked_at is None:
        raise _taken(name)
    if held is not None:
        Credential.objects.filter(device=held).delete()
        Device.objects.filter(pk=held.pk).update(revoked_at=None, role=role, activity={})
        held.refresh_from_db()
        return held
    try:
        with transaction.atomic():
            return Device.objects.create(name=name, role=role)
    except IntegrityError:  # another enrolment took it at this very moment
        raise _taken(name) from None


def _taken(name: str) -> EnrolmentRefused:
    text = f"the name {name!r} is taken; choose another with --name, or revoke that device"
    return EnrolmentRefused(text, 409)


def _credential(device: Device) -> tuple[Admission, Credential]:
    api_token, password = new_secret(), broker_users.new_password()
    credential = Credential.objects.create(
        device=device,
        token_hash=hashed(api_token),
        broker_user=broker_users.user_name(device.pk),
        broker_password_hash=hashed(password),
    )
    url = broker_users.device_url(credential.broker_user, password)
    return Admission(device, api_token, url), credential


def replace_datasets(device: Device, datasets: list[dict[str, Any]]) -> None:
    """Store what a device says it holds now."""
    names = [item["name"] for item in datasets]
    device.datasets.exclude(name__in=names).delete()
    for item in datasets:
        values = {
            "domain": item.get("domain", ""),
            "examples": item["examples"],
            "size_bytes": item.get("size_bytes", 0),
            "columns": item.get("columns", []),
        }
        Dataset.objects.update_or_create(device=device, name=item["name"], defaults=values)


def revoke(device: Device, user: User | None) -> None:
    """Shut one device out: its token and broker user stop working, what it holds is given up."""
    who = user.get_username() if user is not None else "the device itself"
    with transaction.atomic():
        now = timezone.now()
        if not Device.objects.filter(pk=device.pk, revoked_at=None).update(
            revoked_at=now, activity={}
        ):
            return
        Credential.objects.filter(device=device).delete()
        expire_assignments(device, "the device was revoked", retryable=False)
        fleet_event(f"{device.name} was revoked by {who}", EventLevel.WARNING, device)
    try:
        broker_users.drop_user(device.pk)
    except BROKER_ERRORS as error:
        # Its user cannot do harm beyond its own keys; the reconcile pass removes it later.
        fleet_event(
            f"the broker user of {device.name} is removed once the broker answers: {error}",
            EventLevel.WARNING,
            device,
        )
    wake_device(device.pk)
