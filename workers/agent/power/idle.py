"""Power of the idle machine."""

from __future__ import annotations

import time

import psutil  # type: ignore[import-untyped]

from workers.agent.power.meter import Meter
from workers.agent.power.sensor import Sensor

READINGS, READING_S = 10, 0.1
BUSY_PERCENT = 10.0


def idle_watts(sensor: Sensor) -> float | None:
    """Mean power over a second; None where the machine was busy, or a reading is missing."""
    psutil.cpu_percent()
    meter = Meter(sensor)
    portions = []
    for _ in range(READINGS):
        time.sleep(READING_S)
        portions.append(meter.read())
    seconds = sum(portion.seconds for portion in portions)
    incomplete = any(portion.missing_s for portion in portions) or not seconds
    if incomplete or psutil.cpu_percent() > BUSY_PERCENT:
        return None
    return sum(portion.joules for portion in portions) / seconds
