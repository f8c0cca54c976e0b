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
        except Denied as error:
            tell_once("no energy is measured: %s", error)
            continue
        except (OSError, ValueError) as error:
            tell_once("a power sensor is left out: %s", error)
            continue
        if sensor is not None:
            tell_once("energy is measured by %s: %s", sensor.name, sensor.covers)
            return sensor
    return None


def tell_once(text: str, *values: object) -> None:
    """Log a warning or choice the first time only: sensors are looked for again at each round."""
    if (line := text % values) not in _told:
        _told.add(line)
        log.warning(line)
