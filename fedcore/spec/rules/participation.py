"""Combinations that a job specification refuses: rules about the group ``participation``."""

from __future__ import annotations

from collections.abc import Callable

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.participation import ParticipationSpec


def _enough_devices(spec: JobSpec) -> list[Fault]:
    devices = spec.participation.devices
    if devices and spec.participation.minimum > len(devices):
        message = f"asks for more devices than the {len(devices)} named; name more or lower it"
        return [Fault("participation.minimum", message)]
    return []


def _lease_within_deadline(spec: JobSpec) -> list[Fault]:
    part = spec.participation
    if part.lease_s > part.deadline_s:
        message = f"is longer than the deadline of {part.deadline_s:g} s; lower it"
        return [Fault("participation.lease_s", message)]
    return []


def _quorum_within_quantile(spec: JobSpec) -> list[Fault]:
    part = spec.participation
    if not part.buffered and 0 < part.deadline_quantile < part.quorum:
        message = f"lets fewer devices in than the quorum of {part.quorum:g} needs; raise it"
        return [Fault("participation.deadline_quantile", message)]
    return []


def _share_within_tier(spec: JobSpec) -> list[Fault]:
    part = spec.participation
    if not part.buffered and part.tiers > 1 and part.fraction * part.tiers > 1 + 1e-9:
        message = (
            f"make a tier hold fewer devices than a round wants ({part.fraction:g} of all); "
            f"lower participation.fraction to at most {1 / part.tiers:.3g}"
        )
        return [Fault("participation.tiers", message)]
    return []


def _synchronous_only(spec: JobSpec) -> list[Fault]:
    part, plain = spec.participation, ParticipationSpec()
    if not part.buffered:
        return []
    wrong = [name for name in WAITING if getattr(part, name) != getattr(plain, name)]
    message = "is for synchronous rounds; a buffer waits for nobody. Leave it at {}"
    return [
        Fault(f"participation.{name}", message.format(f"{getattr(plain, name):g}"))
        for name in wrong
    ]


def _buffer_within_devices(spec: JobSpec) -> list[Fault]:
    part = spec.participation
    if part.buffered and part.devices and part.buffer_size > len(part.devices):
        message = f"is more than the {len(part.devices)} devices named; name more or lower it"
        return [Fault("participation.buffer_size", message)]
    return []


# Options that say how long a synchronous round waits for whom.
WAITING = ("quorum", "over_selection", "deadline_quantile", "tiers")
RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _enough_devices,
    _lease_within_deadline,
    _quorum_within_quantile,
    _share_within_tier,
    _synchronous_only,
    _buffer_within_devices,
)
