"""The kinds of power sensor, ordered by how much of the machine they cover."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from workers.agent.power import battery, ina3221, nvml, rapl
from workers.agent.power.sensor import Denied, Gpu, Sensor

ROOT = Path("/")
# The module or the whole machine; then the GPU, which dominates a machine that trains on one; then
# the processor. Only one sensor is used, so nothing counts twice.
KINDS: tuple[Callable[[Path, Gpu], Sensor | None], ...] = (
    ina3221.find,
    battery.find,
    nvml.find,
    rapl.find,
)

log = logging.getLogger(__name__)
_logged: set[str] = set()


def choose(gpu: Gpu, root: Path = ROOT) -> Sensor | None:
    """The readable sensor that covers most; None where there is none."""
    for find in KINDS:
        try:
            sensor = find(root, gpu)
        except (Denied, OSError, ValueError) as error:
            log_once(find.__module__, "skipping a power sensor: %s", error)
            continue
        if sensor is not None:
            text = "measuring energy with %s: %s"
            log_once(sensor.name, text, sensor.name, sensor.covers, level=logging.INFO)
            return sensor
    return None


def log_once(key: str, text: str, *values: object, level: int = logging.WARNING) -> None:
    """Log a message once per key, because sensors are read twice a second."""
    if key not in _logged:
        _logged.add(key)
        log.log(level, text, *values)
