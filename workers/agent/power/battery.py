"""Laptop batteries: while one discharges, its output is the whole machine's power.

Files as in https://docs.kernel.org/power/power_supply_class.html: microwatts, or microamperes and
microvolts. On mains power there is no reading.
"""

from __future__ import annotations

from pathlib import Path

from workers.agent.power.sensor import Gpu, Sensor, name_of, number_of

HIGHEST_W = 400.0
MAINS = ("Mains", "USB")


def find(root: Path, gpu: Gpu) -> Sensor | None:
    """None where there is no battery, or none is discharging."""
    del gpu
    supplies = root / "sys/class/power_supply"
    if not _batteries(supplies):
        return None
    sensor = Sensor("battery", "the whole machine", HIGHEST_W, watts=lambda: _watts(supplies))
    return sensor if _watts(supplies) is not None else None


def _batteries(supplies: Path) -> list[Path]:
    """The batteries that power this machine; a mouse's has the scope ``Device``."""
    return [
        folder
        for folder in sorted(supplies.glob("*"))
        if name_of(folder / "type") == "Battery" and name_of(folder / "scope") != "Device"
    ]


def _watts(supplies: Path) -> float | None:
    online = [
        folder
        for folder in supplies.glob("*")
        if name_of(folder / "type") in MAINS and name_of(folder / "online") == "1"
    ]
    discharging = [
        folder for folder in _batteries(supplies) if name_of(folder / "status") == "Discharging"
    ]
    if online or not discharging:
        return None
    watts = 0.0
    for folder in discharging:  # some drivers give a discharge a negative sign
        if (folder / "power_now").exists():
            watts += abs(number_of(folder / "power_now")) / 1e6
        else:
            microamperes = abs(number_of(folder / "current_now"))
            watts += microamperes * number_of(folder / "voltage_now") / 1e12
    return watts
