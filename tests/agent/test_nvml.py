"""The energy of NVIDIA cards, read from a small NVML library in C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from workers.agent.power import nvml, sensor_kinds
from workers.agent.power.sensor import Gpu

pytestmark = pytest.mark.usefixtures("fresh_sensors")
NO_GPU = Gpu()
CARD = Gpu(True)
OURS = "GPU-65d3b9a5-0000-4b1e-9c55-2f6f0e6a7b10"
DRIVER = """
static unsigned long long energy = 7000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = CARDS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned at, void **card) { *card = &energy; return at; }
int nvmlDeviceGetHandleByUUID(const char *name, void **card) {
    *card = &energy; return name[4] == '6' ? 0 : 6; }
#if COUNTS
int nvmlDeviceGetTotalEnergyConsumption(void *card, unsigned long long *mj) {
    *mj = (*(unsigned long long *)card)++; return 0; }
#endif
int nvmlDeviceGetPowerUsage(void *card, unsigned *mw) { *mw = 61500; return POWER; }
int nvmlDeviceGetMigMode(void *card, unsigned *now, unsigned *later) {
    *now = MIG; *later = 0; return 0; }
int nvmlDeviceGetUtilizationRates(void *card, unsigned *both) {
    both[0] = 40; both[1] = 10; return 0; }
"""


def driver(root: Path, cards: int = 1, counts: int = 1, power: int = 0, mig: int = 0) -> None:
    """A library with NVML's calls, where a distribution would put it."""
    folder = root / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    (root / "driver.c").write_text(DRIVER)
    options = [f"-DCARDS={cards}", f"-DCOUNTS={counts}", f"-DPOWER={power}", f"-DMIG={mig}"]
    target = folder / nvml.LIBRARY
    command = ["cc", "-w", "-shared", "-fPIC", *options, "-o", target, root / "driver.c"]
    subprocess.run(command, check=True)


needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="builds a small library")


@needs_cc
def test_gpu_energy_counter_is_preferred_to_power(tmp_path: Path) -> None:
    driver(tmp_path / "new")
    sensor = sensor_kinds.choose(CARD, tmp_path / "new")
    assert sensor is not None and sensor.name == "nvml"
    assert sensor.counters[0].read() == pytest.approx(7.001)
    assert sensor_kinds.choose(NO_GPU, tmp_path / "new") is None, "training does not use the card"
    driver(tmp_path / "old", counts=0)
    sensor = sensor_kinds.choose(CARD, tmp_path / "old")
    assert sensor is not None and sensor.watts is not None
    assert sensor.watts() == 61.5


@needs_cc
def test_shared_or_silent_gpu_has_no_sensor(tmp_path: Path) -> None:
    driver(tmp_path / "sliced", mig=1)
    assert sensor_kinds.choose(CARD, tmp_path / "sliced") is None
    driver(tmp_path / "silent", counts=0, power=3)
    assert sensor_kinds.choose(CARD, tmp_path / "silent") is None


@needs_cc
def test_of_two_cards_the_one_torch_names(tmp_path: Path) -> None:
    driver(tmp_path, cards=2)
    assert sensor_kinds.choose(CARD, tmp_path) is None
    assert sensor_kinds.choose(Gpu(True, OURS), tmp_path) is not None
    assert (
        sensor_kinds.choose(Gpu(True, "GPU-17d3b9a5-0000-4b1e-9c55-2f6f0e6a7b10"), tmp_path) is None
    )
    card = nvml.card(tmp_path, Gpu(True, OURS))
    assert card is not None and card.utilisation() == pytest.approx(0.4)
