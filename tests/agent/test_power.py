"""Power sensors on file trees laid out as in sysfs, the meter that reads them, and estimates."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedcore.hardware.machines import MACHINES
from tests.agent.conftest import ROOT
from workers.agent.power import power_estimate, rapl, sensor_kinds
from workers.agent.power.meter import NOTHING, Meter, Portion
from workers.agent.power.sensor import Counter, Denied, Gpu, Sensor
from workers.agent.profile import probe

pytestmark = pytest.mark.usefixtures("fresh_sensors")
NO_GPU = Gpu()
CARD = Gpu(True)


def write(root: Path, files: dict[str, object]) -> None:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


def hwmon(address: str, rails: dict[str, tuple[int, int]], number: int = 1) -> dict[str, object]:
    """JetPack 5 and 6: millivolts and milliamperes, and the driver's channel of sums."""
    folder = f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{number}"
    files: dict[str, object] = {
        f"{folder}/name": "ina3221",
        f"{folder}/in7_label": "sum of shunt voltages",
        f"{folder}/curr4_input": 99_999,
    }
    for channel, (name, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files[f"{folder}/in{channel}_label"] = name
        files[f"{folder}/in{channel}_enable"] = 1
        files[f"{folder}/in{channel}_input"] = millivolts
        files[f"{folder}/curr{channel}_input"] = milliamperes
    return files


ORIN_NX = hwmon(
    "1-0040", {"VDD_IN": (4976, 1456), "VDD_CPU_GPU_CV": (4976, 400), "VDD_SOC": (4968, 304)}
)
AGX_ORIN = {
    **hwmon(
        "1-0040",
        {"VDD_GPU_SOC": (20_000, 200), "VDD_CPU_CV": (20_000, 50), "VIN_SYS_5V0": (5_000, 800)},
        3,
    ),
    **hwmon("1-0041", {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5_000, 160)}, 4),
}
NANO_IIO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
NANO = {
    f"{NANO_IIO}/rail_name_0": "POM_5V_IN",
    f"{NANO_IIO}/in_power0_input": 2514,
    f"{NANO_IIO}/rail_name_1": "POM_5V_GPU",
    f"{NANO_IIO}/in_power1_input": 40,
}
BATTERY = "sys/class/power_supply/BAT0"
LAPTOP: dict[str, object] = {
    f"{BATTERY}/type": "Battery",
    f"{BATTERY}/status": "Discharging",
    f"{BATTERY}/power_now": 11_340_000,
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": 0,
    "sys/class/power_supply/hidpp_battery_0/type": "Battery",
    "sys/class/power_supply/hidpp_battery_0/scope": "Device",
    "sys/class/power_supply/hidpp_battery_0/status": "Discharging",
    "sys/class/power_supply/hidpp_battery_0/power_now": 99_000_000,
}
ZONE = "sys/class/powercap/intel-rapl:0"
RAPL: dict[str, object] = {
    f"{ZONE}/name": "package-0",
    f"{ZONE}/energy_uj": 5_000_000,
    f"{ZONE}/max_energy_range_uj": 262_143_328_850,
    "sys/class/powercap/intel-rapl:0:0/name": "core",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": 4_000_000,
    "sys/class/powercap/intel-rapl:0:1/name": "dram",
    "sys/class/powercap/intel-rapl:0:1/energy_uj": 1_000_000,
    "sys/class/powercap/intel-rapl:0:1/max_energy_range_uj": 65_712_999_613,
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
    "sys/class/powercap/intel-rapl-mmio:0/energy_uj": 5_000_000,
    "sys/class/powercap/intel-rapl-mmio:0/max_energy_range_uj": 262_143_328_850,
}


@pytest.mark.parametrize(
    ("files", "watts", "covers"),
    [
        (ORIN_NX, 4.976 * 1.456, "VDD_IN"),
        (AGX_ORIN, 4.0 + 1.0 + 4.0, "VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0"),
        (NANO, 2.514, "POM_5V_IN"),
        (LAPTOP, 11.34, "whole machine"),
    ],
)
def test_gauges(files: dict[str, object], watts: float, covers: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    sensor = sensor_kinds.choose(NO_GPU, tmp_path)
    assert sensor is not None and sensor.watts is not None
    assert sensor.watts() == pytest.approx(watts)
    assert covers in sensor.covers


def test_board_with_incomplete_rails_has_no_sensor(tmp_path: Path) -> None:
    write(tmp_path, hwmon("1-0040", {"VDD_CPU_CV": (5000, 100)}))
    assert sensor_kinds.choose(NO_GPU, tmp_path) is None


def test_battery_by_current_and_voltage_not_on_mains(tmp_path: Path) -> None:
    write(tmp_path, LAPTOP)
    (tmp_path / BATTERY / "power_now").unlink()
    write(tmp_path, {f"{BATTERY}/current_now": -1_000_000, f"{BATTERY}/voltage_now": 11_400_000})
    sensor = sensor_kinds.choose(NO_GPU, tmp_path)
    assert sensor is not None and sensor.watts is not None
    assert sensor.watts() == pytest.approx(11.4)
    write(tmp_path, {"sys/class/power_supply/AC/online": 1})
    assert sensor.watts() is None
    assert sensor_kinds.choose(NO_GPU, tmp_path) is None
    write(tmp_path, {"sys/class/power_supply/AC/online": 0, f"{BATTERY}/status": "Charging"})
    assert sensor.watts() is None


def test_sensor_that_covers_most_is_chosen_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write(tmp_path, RAPL)
    assert sensor_kinds.choose(NO_GPU, tmp_path).name == "rapl"  # type: ignore[union-attr]
    write(tmp_path, LAPTOP)
    for _ in range(3):
        assert sensor_kinds.choose(NO_GPU, tmp_path).name == "battery"  # type: ignore[union-attr]
    assert caplog.text.count("with battery: the whole machine") == 1
    write(tmp_path, ORIN_NX)
    assert sensor_kinds.choose(NO_GPU, tmp_path).name == "ina3221"  # type: ignore[union-attr]


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    write(tmp_path, RAPL)
    sensor = rapl.find(tmp_path, NO_GPU)
    assert sensor is not None and sensor.covers == "the processor and memory"
    assert [counter.read() for counter in sensor.counters] == [5.0, 1.0]
    assert sensor.counters[0].wraps_at_j == pytest.approx(262_143.328850)


def test_denied_counter_says_how_to_allow_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, RAPL)
    (tmp_path / ZONE / "energy_uj").chmod(0)
    if os.geteuid() == 0:  # who may read everything

        def denied(path: Path) -> float:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(rapl, "number_of", denied)
    with pytest.raises(Denied, match="chgrp"):
        rapl.find(tmp_path, NO_GPU)
    assert sensor_kinds.choose(NO_GPU, tmp_path) is None
    assert sensor_kinds.choose(NO_GPU, tmp_path) is None
    assert caplog.text.count("only root may read") == 1


class Bench:
    """A sensor and a clock that a test moves."""

    def __init__(self, *wraps_at_j: float | None, highest_w: float = 100.0) -> None:
        self.now = 1000.0
        self.joules = [0.0] * len(wraps_at_j)
        self.watts: float | Exception | None = 10.0
        counters = tuple(
            Counter(lambda at=at: self.joules[at], wrap)  # type: ignore[misc]
            for at, wrap in enumerate(wraps_at_j)
        )
        self.meter = Meter(
            Sensor("rapl", "a bench", highest_w, None if counters else self.read, counters),
            lambda: self.now,
        )

    def read(self) -> float | None:
        if isinstance(self.watts, Exception):
            raise self.watts
        return self.watts

    def after(self, seconds: float) -> Portion:
        self.now += seconds
        return self.meter.read()


def test_power_is_integrated() -> None:
    bench = Bench()
    bench.watts = 20.0
    assert bench.after(2.0) == Portion(30.0, 2.0)
    assert bench.after(1.0) == Portion(20.0, 1.0)


@pytest.mark.parametrize(
    "watts", [0.0, -3.0, 1e6, float("nan"), None, OSError("gone"), ValueError()]
)
def test_implausible_power_is_missing(
    watts: float | Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.watts = watts
    assert bench.after(1.0) == Portion(missing_s=1.0)
    if isinstance(watts, float) and watts < 0:
        bench.watts = watts - 0.1  # another wrong value is no news
    assert bench.after(1.0) == Portion(missing_s=1.0)
    assert len(caplog.records) == (0 if watts is None else 1)
    bench.watts = 5.0
    assert bench.after(1.0) == Portion(missing_s=1.0), "half of it is unknown"
    assert bench.after(1.0) == Portion(5.0, 1.0)


def test_nobody_looked_for_long() -> None:
    assert Bench().after(60.0) == Portion(missing_s=60.0)


def test_clock_going_back_changes_nothing() -> None:
    bench = Bench()
    assert bench.after(-100.0) == NOTHING
    assert bench.after(101.0) == Portion(10.0, 1.0)


def test_counters_wrap_each_for_itself() -> None:
    bench = Bench(1000.0, 500.0)
    bench.joules = [990.0, 100.0]
    assert bench.after(10.0).missing_s == 10.0, "more than 100 W"
    bench.joules = [5.0, 120.0]
    assert bench.after(1.0) == Portion(35.0, 1.0)


def test_counter_reset_or_double_wrap_is_missing() -> None:
    bench = Bench(None)
    bench.joules = [50.0]
    assert bench.after(1.0) == Portion(50.0, 1.0)
    bench.joules = [3.0]
    assert bench.after(1.0) == Portion(missing_s=1.0)
    bench = Bench(1000.0)
    bench.joules = [10.0]
    assert bench.after(9.5) == Portion(missing_s=9.5), "1000 J may have gone by unseen"


def test_counter_in_steps_is_read_and_a_stuck_one_is_missing() -> None:
    bench = Bench(None)
    assert bench.after(0.05) == NOTHING
    bench.joules = [5.0]
    assert bench.after(0.05) == Portion(5.0, pytest.approx(0.1))
    assert bench.after(9.0) == NOTHING
    assert bench.after(2.0) == Portion(missing_s=11.0)


def test_estimate_lies_between_idle_and_full() -> None:
    now, busy = [0.0], [0.5]
    estimate = power_estimate.PowerEstimate(2.0, 8.0, lambda: busy[0], lambda: now[0])
    now[0] = 2.0
    assert estimate.read() == Portion(10.0, 2.0)
    now[0], busy[0] = 3.0, 7.0
    assert estimate.read() == Portion(8.0, 1.0)
    now[0] = 3.1
    assert estimate.read() == NOTHING
    now[0] = 90.0
    assert estimate.read() == Portion(missing_s=87.0)


def test_unreadable_load_gives_no_estimate(tmp_path: Path) -> None:
    write(tmp_path, {power_estimate.GPU_LOADS[0]: "busy"})
    estimate = power_estimate.estimate({"board": "raspberry-pi-5"}, NO_GPU, tmp_path)
    assert estimate is not None
    time.sleep(power_estimate.SHORTEST_S)
    assert estimate.read().missing_s > 0
    write(tmp_path, {power_estimate.GPU_LOADS[0]: 1000})
    time.sleep(power_estimate.SHORTEST_S)
    portion = estimate.read()
    machine = MACHINES["raspberry-pi-5"]
    assert portion.joules == pytest.approx(portion.seconds * (machine.full_watts or 0.0))


def test_only_known_machines_are_estimated(tmp_path: Path) -> None:
    estimate = power_estimate.estimate({"board": "raspberry-pi-5"}, NO_GPU, tmp_path)
    assert estimate is not None
    assert power_estimate.estimate({"board": ""}, NO_GPU, tmp_path) is None
    assert power_estimate.estimate({"board": "of-tomorrow"}, NO_GPU, tmp_path) is None
    assert power_estimate.estimate({"board": "h100"}, CARD, tmp_path) is None


def test_power_command_prints_the_sensor(tmp_path: Path) -> None:
    """On this machine, whatever it has; an unknown GPU is not an error."""
    for words in ([], ["-"], ["GPU-65d3b9a5-0000-4b1e-9c55-2f6f0e6a7b10"]):
        command = [sys.executable, "-m", "workers.agent.power", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() in ("", "ina3221", "battery", "nvml", "rapl")
        assert "torch" not in done.stderr
    assert probe.power_sensor({"accelerator": ""}) in ("", "ina3221", "battery", "rapl")
