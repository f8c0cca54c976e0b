"""Whether a connected device can do work, and what else is worth saying about it.

``CONDITIONS`` is the one table of reasons: pages, REST, the coordinator's choice of devices and the
sentence on a job all read it through ``ability``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from django.utils import timezone

from webapp.common import units

# Agents with one credential replace each other every few seconds, at most every minute.
TWO_AGENTS_WINDOW = timedelta(minutes=3)
# A refused agent asks again every five minutes.
REFUSED_WINDOW = timedelta(minutes=15)
CLOCK_TOLERANCE_S = 60.0

POLL = "poll"
# How a device is connected, by Device.line_channel.
CHANNEL_WORDS: Mapping[str, str] = {
    "websocket": "connected by WebSocket",
    POLL: "connected by long poll",
}
AGENT_TOO_OLD, AGENT_TOO_NEW = "too old", "too new"
UPDATE_WORDS: Mapping[str, str] = {
    AGENT_TOO_OLD: "update its agent: this site needs a newer one",
    AGENT_TOO_NEW: "update this site: the device's agent is newer",
}


class DeviceState(Protocol):
    """The columns of ``webapp.devices.models.Device`` that decide."""

    agent_refusal: Any
    agent_refused_at: Any
    agents_alternated_at: Any
    health: Any
    line_channel: Any
    revoked_at: Any

    @property
    def is_online(self) -> bool: ...


@dataclass(frozen=True)
class Reason:
    """``blocks``: the device gets no work. ``detail``: a figure that changes more often."""

    text: str
    blocks: bool
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


@dataclass(frozen=True)
class Condition:
    """A row of the table. ``connected_only``: says nothing about a device that is not connected."""

    applies: Callable[[DeviceState], bool]
    text: Callable[[DeviceState], str]
    blocks: bool = True
    detail: Callable[[DeviceState], str] = lambda _device: ""
    connected_only: bool = True


def _is_refused(device: DeviceState) -> bool:
    return not device.is_online and _is_recent(device.agent_refused_at, REFUSED_WINDOW)


def _update_text(device: DeviceState) -> str:
    refusal: str = device.agent_refusal
    return UPDATE_WORDS.get(refusal, UPDATE_WORDS[AGENT_TOO_OLD])


def _has_two_agents(device: DeviceState) -> bool:
    return _is_recent(device.agents_alternated_at, TWO_AGENTS_WINDOW)


def _is_recent(at: datetime | None, window: timedelta) -> bool:
    return at is not None and timezone.now() - at < window


def _two_agents_text(device: DeviceState) -> str:
    state = "connected, " if device.is_online else ""
    return f"{state}does not take work: two agents use this credential"


def _clock_ahead_s(device: DeviceState) -> float:
    return units.number(device.health.get("clock_ahead_s")) or 0.0


def _clock_text(device: DeviceState) -> str:
    ahead_s = _clock_ahead_s(device)
    words = units.coarse(abs(ahead_s))
    return f"its clock is {words} {'ahead' if ahead_s > 0 else 'behind'}"


def _polls(device: DeviceState) -> bool:
    channel: str = device.line_channel
    return channel == POLL


def _reports(flag: str) -> Callable[[DeviceState], bool]:
    return lambda device: bool(device.health.get(flag))


def _always(text: str) -> Callable[[DeviceState], str]:
    return lambda _device: text


def _free_text(device: DeviceState) -> str:
    return f"{units.size(units.number(device.health.get('disk_free_bytes')))} free"


# The first that applies is the device's reason.
CONDITIONS: tuple[Condition, ...] = (
    Condition(_is_refused, _update_text, connected_only=False),
    Condition(_has_two_agents, _two_agents_text, connected_only=False),
    Condition(_reports("disk_full"), _always("connected, but its disk is full"), detail=_free_text),
    Condition(
        _reports("store_failed"), _always("connected, but its state folder cannot be written")
    ),
    Condition(
        lambda device: abs(_clock_ahead_s(device)) > CLOCK_TOLERANCE_S, _clock_text, blocks=False
    ),
    Condition(
        _polls,
        _always("connected by long poll: something on the way lets no WebSocket through"),
        blocks=False,
    ),
)


def ability(device: DeviceState) -> Reason | None:
    """Why a device does no work, or what to mend on it; None where there is nothing to say.

    Revoked and silent devices have no reason: their presence says it.
    """
    if device.revoked_at is not None:
        return None
    connected = device.is_online
    for condition in CONDITIONS:
        if (connected or not condition.connected_only) and condition.applies(device):
            return Reason(condition.text(device), condition.blocks, condition.detail(device))
    return None


def blocks_work(health: Mapping[str, Any]) -> bool:
    """Whether a device that reports this takes no work."""
    return bool(health.get("disk_full") or health.get("store_failed"))
