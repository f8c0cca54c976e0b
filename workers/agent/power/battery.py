"""A laptop's battery: what it gives while it discharges is what the whole machine draws.

Files as in https://docs.kernel.org/power/power_supply_class.html: microwatts, or microamperes and
microvolts. On the mains it has nothing to say.
"""

from __future__ import annotations

from pathlib import Path

from workers.agent.power.sensor import Gpu, Sensor, name_of, number_of

HIGHEST_W = 400.0
MAINS = ("Mains", "USB")


def find(root: Path, gpu: Gpu) -> Sensor | None:
    """None where there is no battery, or it does not discharge now."""
    del gpu
    supplies = root / "sys/class/power_supply"
    if not _batteries(supplies):
        return None
    sensor = Sensor("battery", "the whole machine", HIGHEST_W, watts=lambda: _watts(supplies))
    return sensor if _watts(supplies) is not None else None


def _batteries(supplies: Path) -> list[Path]:
    """Those that feed this machine; a mouse's has the scope ``Device``."""
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
    giving = [
        folder for folder in _batteries(supplies) if name_of(folder / "status") == "Discharging"
    ]
    if online or not giving:
        return None
    return sum(_watts_of(folder) for folder in giving)


def _watts_of(folder: Path) -> float:
    """Some drivers give the current of a discharge a sign."""
    if (folder / "power_now").exists():
        return abs(number_of(folder / "power_now")) / 1e6
    return abs(number_of(folder / "current_now")) * number_of(folder / "voltage_now") / 1e12
