"""What a machine draws while it has nothing to do."""

from __future__ import annotations

import time

import psutil  # type: ignore[import-untyped]

from workers.agent.power.meter import Meter
from workers.agent.power.sensor import Sensor

LOOKS, LOOK_S = 10, 0.1
BUSY_PERCENT = 10.0


def idle_watts(sensor: Sensor) -> float | None:
    """Mean power of a second; None where the machine was busy meanwhile, or the sensor silent."""
    psutil.cpu_percent()
    meter = Meter(sensor)
    portions = []
    for _ in range(LOOKS):
        time.sleep(LOOK_S)
        portions.append(meter.read())
    seconds = sum(portion.seconds for portion in portions)
    silent = any(portion.missing_s for portion in portions) or not seconds
    if silent or psutil.cpu_percent() > BUSY_PERCENT:
        return None
    return sum(portion.joules for portion in portions) / seconds
