"""The kinds of sensor, in the order of how much of the machine they cover."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from workers.agent.power import battery, ina3221, nvml, rapl
from workers.agent.power.sensor import Denied, Gpu, Sensor

ROOT = Path("/")
# The module or the whole machine; then the card, which is nearly all of a machine that trains on
# one; then the processor. Only one is used, so nothing counts twice.
KINDS: tuple[Callable[[Path, Gpu], Sensor | None], ...] = (
    ina3221.find,
    battery.find,
    nvml.find,
    rapl.find,
)

log = logging.getLogger(__name__)
_told: set[str] = set()


def choose(gpu: Gpu, root: Path = ROOT) -> Sensor | None:
    """The sensor that covers most and can be read now; None where there is none."""
    for find in KINDS:
        try:
            sensor = find(root, gpu)
        except (Denied, OSError, ValueError) as error:
            tell_once(find.__module__, "a power sensor is left out: %s", error)
            continue
        if sensor is not None:
            said = "energy is measured by %s: %s"
            tell_once(sensor.name, said, sensor.name, sensor.covers, level=logging.INFO)
            return sensor
    return None


def tell_once(key: str, text: str, *values: object, level: int = logging.WARNING) -> None:
    """Log what has this key the first time only: sensors are read twice a second."""
    if key not in _told:
        _told.add(key)
        log.log(level, text, *values)
