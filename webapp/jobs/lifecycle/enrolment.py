"""Enrolment and revocation of devices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from fedcore.errors import EdgewiseError
from webapp.accounts.models import User
from webapp.common.wake import wake_device
from webapp.devices import device_messages
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
    """The token or the name is not valid for an enrolment. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Admission:
    """A device and its credential, which is stored only as a hash."""

    device: Device
    api_token: str


def create_enrolment(
    user: User, name: str, role: str, valid_for: timedelta
) -> tuple[Enrolment, str]:
    """Create a one-time token. Returns the row and the token, which is not stored."""
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

    Raises EnrolmentRefused: 403 for an unknown, used or expired token, 400 without a name, 409
    for a name in use.
    """
    with transaction.atomic():
        enrolment = _use_token(token)
        device = _create_device(enrolment.name or name, enrolment.role)
        Device.objects.filter(pk=device.pk).update(profile=profile, agent_version=agent_version)
        replace_datasets(device, datasets)
        api_token = new_secret()
        Credential.objects.create(device=device, token_hash=hashed(api_token))
        Enrolment.objects.filter(pk=enrolment.pk).update(device=device)
        fleet_event(f"{device.name} enrolled", device=device)
    wake_device(device.pk)
    return Admission(device, api_token)


def _use_token(token: str) -> Enrolment:
    """Mark a waiting token as used. Raises EnrolmentRefused."""
    now = timezone.now()
    waiting = Enrolment.objects.filter(token_hash=hashed(token), used_at=None, expires_at__gt=now)
    if waiting.update(used_at=now) == 1:
        return Enrolment.objects.get(token_hash=hashed(token))
    known = Enrolment.objects.filter(token_hash=hashed(token)).first()
    if known is None:
        raise EnrolmentRefused("this token is unknown; copy the whole command again", 403)
    text = "was used" if known.used_at else f"expired at {known.expires_at:%Y-%m-%d %H:%M} UTC"
    raise EnrolmentRefused(f"this token {text}; create a new one on the page 'Enrol a device'", 403)


def _create_device(name: str, role: str) -> Device:
    """A new device, or a revoked one of that name enrolled again. Raises EnrolmentRefused."""
    if not name:
        raise EnrolmentRefused("give the device a name with --name", 400)
    existing = Device.objects.select_for_update().filter(name=name).first()
    if existing is not None and existing.revoked_at is None:
        raise _name_in_use(name)
    if existing is not None:
        Credential.objects.filter(device=existing).delete()
        Device.objects.filter(pk=existing.pk).update(revoked_at=None, role=role, activity={})
        existing.refresh_from_db()
        return existing
    try:
        with transaction.atomic():
            return Device.objects.create(name=name, role=role)
    except IntegrityError:  # a concurrent enrolment uses the name
        raise _name_in_use(name) from None


def _name_in_use(name: str) -> EnrolmentRefused:
    text = f"the name {name!r} is in use; choose another with --name, or revoke that device"
    return EnrolmentRefused(text, 409)


def replace_datasets(device: Device, datasets: list[dict[str, Any]]) -> None:
    """Store the datasets that a device reports now; others of it are deleted."""
    columns = ("name", "domain", "examples", "size_bytes", "columns")
    reported = {
        item["name"]: {
            "name": item["name"],
            "domain": item.get("domain", ""),
            "examples": item["examples"],
            "size_bytes": item.get("size_bytes", 0),
            "columns": item.get("columns", []),
        }
        for item in datasets
    }
    stored = {row["name"]: row for row in device.datasets.values(*columns)}
    if set(stored) - set(reported):
        device.datasets.exclude(name__in=reported).delete()
    for name, values in reported.items():
        if stored.get(name) != values:
            Dataset.objects.update_or_create(device=device, name=name, defaults=values)


def revoke(device: Device, user: User | None) -> None:
    """Revoke a device: its token stops working, its line ends, its assignments expire."""
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
    device_messages.announce_revocation(device.pk)
    wake_device(device.pk)
