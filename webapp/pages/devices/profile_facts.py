"""The hardware facts on a device's page, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.hardware.machines import MACHINES
from fedcore.hardware.profile import hardware_of
from webapp.common.units import coarse, number, plausible, si, size
from webapp.devices.ability import CHANNEL_WORDS
from webapp.devices.models import Device

# What each power sensor covers.
SENSORS = {
    "nvml": "NVML (whole GPU)",
    "ina3221": "INA3221 (whole module)",
    "rapl": "RAPL (processor and memory only)",
    "battery": "battery (whole machine, while discharging)",
}


@dataclass(frozen=True)
class ProfileFact:
    """A line of the profile; ``source`` says how it was measured, empty if it was not."""

    label: str
    value: str
    source: str = ""


def peak_facts(profile: Mapping[str, Any]) -> list[ProfileFact]:
    """The measured peak of each precision."""
    reported = profile.get("peak_flops")
    peaks = (
        {str(name): plausible(value) for name, value in reported.items()}
        if isinstance(reported, dict)
        else {}
    )
    fp32 = peaks.get("fp32")
    facts = []
    for precision, peak in sorted(peaks.items(), reverse=True):
        value, source = si(peak, "FLOP/s"), "measured"
        if peak is None:
            value, source = "not known", ""
        elif peak == 0:
            value, source = "no fast path on this hardware", ""
        elif fp32 and precision != "fp32" and peak < fp32:
            value = f"{value}, slower than fp32 ({si(fp32, 'FLOP/s')})"
        facts.append(ProfileFact(f"Peak {precision}", value, source))
    return facts


def connection_facts(device: Device) -> list[ProfileFact]:
    """How it is connected, and its free space and clock as it last reported them."""
    facts = []
    if device.is_online:
        words = CHANNEL_WORDS[device.line_channel].removeprefix("connected ")
        facts.append(ProfileFact("Connected", words))
    health = device.health
    if health:
        free = plausible(health.get("disk_free_bytes"))
        clock, ahead_s = "correct", number(health.get("clock_ahead_s"))
        if ahead_s:
            clock = f"{coarse(abs(ahead_s))} {'ahead' if ahead_s > 0 else 'behind'}"
        facts += [ProfileFact("Free disk", size(free), "reported"), ProfileFact("Clock", clock)]
    return facts


def rate_facts(profile: Mapping[str, Any], link_bps: float | None) -> list[ProfileFact]:
    """Rates of memory, disk and link, and the power sensor."""
    return [
        _rate_fact(
            "Memory bandwidth", profile.get("memory_bandwidth_bps"), "measured, read + write"
        ),
        _rate_fact("Disk read", profile.get("disk_read_bps"), "measured"),
        _rate_fact("Disk write", profile.get("disk_write_bps"), "measured"),
        _rate_fact("Link", link_bps, "measured in the last download"),
        power_fact(profile),
    ]


def _rate_fact(label: str, value: object, source: str) -> ProfileFact:
    rate_bps = plausible(value)
    return ProfileFact(
        label, si(rate_bps, "B/s") if rate_bps else "not known", source if rate_bps else ""
    )


def power_fact(profile: Mapping[str, Any]) -> ProfileFact:
    """The power sensor, or what its absence means for energy figures."""
    label, sensor = "Power sensor", profile.get("power_sensor")
    if isinstance(sensor, str) and sensor in SENSORS:
        return ProfileFact(label, SENSORS[sensor], "measured")
    if sensor is None:
        return ProfileFact(label, "not reported by this agent")
    hardware = hardware_of(profile)
    board = MACHINES.get(hardware.board)
    if board is None or not hardware.full_watts:
        return ProfileFact(label, "none, and no data sheet: no energy figures")
    return ProfileFact(label, f"none; energy is estimated from the data sheet of {board.name}")


def probe_gaps(profile: Mapping[str, Any]) -> list[str]:
    """What the probe could not measure, and why."""
    reasons = profile.get("not_measured")
    if not isinstance(reasons, list):
        return []
    return [reason[:200] for reason in reasons if isinstance(reason, str)]
