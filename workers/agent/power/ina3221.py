"""The INA3221 of Jetson boards, whose driver gives millivolts and milliamperes of three rails.

Read where JetPack 5 and 6 have it (hwmon) and where JetPack 4 has it (iio, milliwatts). Files as in
https://docs.kernel.org/hwmon/ina3221.html. Rails as NVIDIA's developer guide names them ("Jetson
Orin NX Series, Orin Nano Series and AGX Orin Series: Platform Power and Performance").
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workers.agent.power.sensor import Gpu, Sensor, name_of, number_of

HIGHEST_W = 200.0
HWMON = "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"
IIO = "sys/bus/i2c/drivers/ina3221x/*/iio:device*"
CHANNELS = (1, 2, 3)  # in7 and curr4 of the driver are sums of these
# The rail that feeds the whole module; the others are parts of it.
WHOLE = ("VDD_IN", "POM_5V_IN", "5V_IN")
# Boards without such a rail: those whose sum is the module. VDDQ_VDD2_1V8AO of the AGX Orin hangs
# on VIN_SYS_5V0 and would count twice.
SUMS = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)

Rail = Callable[[], float]


def find(root: Path, gpu: Gpu) -> Sensor | None:
    """The module's input where a rail measures it, else the rails that make it up."""
    del gpu
    rails = {**_iio(root), **_hwmon(root)}
    for name in WHOLE:
        if name in rails:
            return _sensor(f"the module's input {name}", [rails[name]])
    for names in SUMS:
        if set(names) <= set(rails):
            return _sensor(f"the rails {', '.join(names)}", [rails[name] for name in names])
    return None


def _sensor(covers: str, rails: list[Rail]) -> Sensor:
    return Sensor("ina3221", covers, HIGHEST_W, watts=lambda: sum(rail() for rail in rails))


def _hwmon(root: Path) -> dict[str, Rail]:
    found: dict[str, Rail] = {}
    for folder in sorted(root.glob(HWMON)):
        for channel in CHANNELS:
            name = name_of(folder / f"in{channel}_label")
            if name and name_of(folder / f"in{channel}_enable") != "0":
                found[name] = _product(
                    folder / f"in{channel}_input", folder / f"curr{channel}_input"
                )
    return found


def _product(millivolts: Path, milliamperes: Path) -> Rail:
    return lambda: number_of(millivolts) * number_of(milliamperes) / 1e6


def _iio(root: Path) -> dict[str, Rail]:
    found: dict[str, Rail] = {}
    for folder in sorted(root.glob(IIO)):
        for channel in range(3):
            if name := name_of(folder / f"rail_name_{channel}"):
                found[name] = _milliwatts(folder / f"in_power{channel}_input")
    return found


def _milliwatts(path: Path) -> Rail:
    return lambda: number_of(path) / 1e3
