"""Wake-ups for live pages. They carry nothing: a page reads the rows behind its own cursors."""

from __future__ import annotations

import logging
from functools import partial
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from webapp.broker import BROKER_ERRORS

log = logging.getLogger(__name__)

FLEET_GROUP = "fleet"


def job_group(job_id: UUID) -> str:
    return f"job.{job_id.hex}"


def device_group(device_id: int) -> str:
    return f"device.{device_id}"


def wake_job(job_id: UUID) -> None:
    _wake(job_group(job_id), FLEET_GROUP)


def wake_device(device_id: int) -> None:
    _wake(device_group(device_id), FLEET_GROUP)


def wake_fleet() -> None:
    _wake(FLEET_GROUP)


def _wake(*groups: str) -> None:
    transaction.on_commit(partial(_send, groups))


def _send(groups: tuple[str, ...]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        for group in groups:
            async_to_sync(layer.group_send)(group, {"type": "wake"})
    except BROKER_ERRORS as error:
        # A page also looks by itself every few seconds, so it is late by that much and no more.
        log.warning("live pages were not woken, the broker is down: %s", error)
