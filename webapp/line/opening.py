"""Opening and closing of a line in the database: the newest authenticated line wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from django.db import transaction
from django.db.models import F

from webapp.common.wake import wake_device
from webapp.devices.models import Credential, Device, LineChannel, hashed


@dataclass(frozen=True)
class OpenedLine:
    """``boot_id`` is that of the agent's hello, '' before it."""

    device_id: int
    epoch: int
    boot_id: str = ""


SCHEME = "Device "


def token_of(authorization: str) -> str:
    """The token of an Authorization header; '' where it is another kind."""
    token = authorization.removeprefix(SCHEME)
    return "" if token == authorization else token.strip()


def is_valid(token: str) -> bool:
    rows = Credential.objects.filter(token_hash=hashed(token), device__revoked_at=None)
    return rows.exists()


class TooManyLines(Exception):
    """The device opens lines too often."""


def open_line(
    token: str,
    may_open: Callable[[int], bool] = lambda _device_id: True,
    channel: LineChannel = LineChannel.WEBSOCKET,
) -> OpenedLine | None:
    """Raise the epoch of the token's device; None for an unknown or revoked token.

    Raises TooManyLines where ``may_open`` refuses the device; its older line then goes on.
    """
    rows = Credential.objects.filter(token_hash=hashed(token), device__revoked_at=None)
    device_id = rows.values_list("device_id", flat=True).first()
    if device_id is None:
        return None
    if not may_open(device_id):
        raise TooManyLines
    device = Device.objects.filter(pk=device_id)
    with transaction.atomic():  # the row stays locked, so that no two lines get one epoch
        device.update(line_epoch=F("line_epoch") + 1, line_channel=channel)
        epoch = device.values_list("line_epoch", flat=True).get()
    return OpenedLine(device_id, epoch)


def continue_line(token: str, epoch: int, boot_id: str) -> OpenedLine | None:
    """The line of an earlier poll; None where the token is void or another line is newer.

    A site that was restored may give an epoch for a second time, so the boot has to fit too.
    """
    rows = Credential.objects.filter(token_hash=hashed(token), device__revoked_at=None)
    newest = rows.filter(device__line_epoch=epoch, device__boot_id=boot_id)
    device_id = newest.values_list("device_id", flat=True).first()
    return OpenedLine(device_id, epoch, boot_id) if device_id is not None else None


def close_line(device_id: int, epoch: int) -> None:
    """The line ended: its device is disconnected, unless it has a newer one."""
    newest = Device.objects.filter(pk=device_id, line_epoch=epoch, disconnected_at=None)
    if newest.update(disconnected_at=datetime.now(timezone.utc)):
        wake_device(device_id)


def note_refused_agent(token: str, refusal: str) -> None:
    """An agent whose version this site does not speak has called (``webapp.devices.ability``)."""
    rows = Credential.objects.filter(token_hash=hashed(token), device__revoked_at=None)
    device_id = rows.values_list("device_id", flat=True).first()
    if device_id is not None:
        now = datetime.now(timezone.utc)
        Device.objects.filter(pk=device_id).update(agent_refused_at=now, agent_refusal=refusal)
        wake_device(device_id)
