"""The INA3221 power monitor of Jetson boards: millivolts and milliamperes of three rails.

JetPack 5 and 6 expose it as hwmon, JetPack 4 as iio (milliwatts). Files as in
https://docs.kernel.org/hwmon/ina3221.html. Rails as NVIDIA's developer guide names them ("Jetson
Orin NX Series, Orin Nano Series and AGX Orin Series: Platform Power and Performance").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from workers.agent.power.sensor import Gpu, Sensor, name_of, number_of

HIGHEST_W = 200.0
HWMON = "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"
IIO = "sys/bus/i2c/drivers/ina3221x/*/iio:device*"
CHANNELS = (1, 2, 3)  # the driver's in7 and curr4 are sums of these
# The rail that powers the whole module; the others are parts of it.
MODULE_RAILS = ("VDD_IN", "POM_5V_IN", "5V_IN")
# Boards without such a rail: the rails whose sum is the module. VDDQ_VDD2_1V8AO of the AGX Orin
# is fed by VIN_SYS_5V0 and would count twice.
RAIL_SUMS = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)


@dataclass(frozen=True)
class Rail:
    """A rail's power: the product of its files' numbers, which are ``per_watt`` of a watt."""

    files: tuple[Path, ...]
    per_watt: float

    def watts(self) -> float:
        return math.prod(number_of(file) for file in self.files) / self.per_watt


def find(root: Path, gpu: Gpu) -> Sensor | None:
    """The module's input rail where it is measured, otherwise the rails that make it up."""
    del gpu
    rails = _labelled_rails(root)
    for name in MODULE_RAILS:
        if name in rails:
            return _sensor(f"the module's input {name}", [rails[name]])
    for names in RAIL_SUMS:
        if set(names) <= set(rails):
            return _sensor(f"the rails {', '.join(names)}", [rails[name] for name in names])
    return None


def _sensor(covers: str, rails: list[Rail]) -> Sensor:
    return Sensor("ina3221", covers, HIGHEST_W, watts=lambda: sum(rail.watts() for rail in rails))


def _labelled_rails(root: Path) -> dict[str, Rail]:
    """Rails by label; those of hwmon where both drivers are present."""
    rails = {}
    for folder in sorted(root.glob(IIO)):
        for channel in range(3):
            if name := name_of(folder / f"rail_name_{channel}"):
                rails[name] = Rail((folder / f"in_power{channel}_input",), 1e3)
    for folder in sorted(root.glob(HWMON)):
        for channel in CHANNELS:
            name = name_of(folder / f"in{channel}_label")
            if name and name_of(folder / f"in{channel}_enable") != "0":
                files = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
                rails[name] = Rail(files, 1e6)
    return rails
