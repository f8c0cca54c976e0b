"""The hardware probe: benchmarks, disk, idle power, stored profiles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from tests.agent.conftest import PROFILE, ROOT, wait_for
from workers.agent.agent_settings import read_settings
from workers.agent.power import idle
from workers.agent.power.sensor import Counter, Sensor
from workers.agent.profile import benchmarks, disk, measure, probe
from workers.agent.state.files import write_json

CPU = torch.device("cpu")


def test_flops_and_bytes_match_the_operation() -> None:
    one = benchmarks.linear(64, 32, 128)
    assert one.name == "linear 32x128"
    assert one.flops == 2 * 64 * 32 * 128
    figures = one.measure(torch.float32, CPU)
    moved = 4 * (64 * 32 + 32 * 128 + 64 * 128)
    assert figures["flops_per_byte"] == pytest.approx(one.flops / moved, abs=1e-3)
    assert figures["flops_per_s"] > 0
    half = one.measure(torch.bfloat16, CPU)
    assert half["flops_per_byte"] == pytest.approx(2 * figures["flops_per_byte"], abs=2e-3)


@pytest.mark.parametrize(
    "kernel", benchmarks.kernel_benchmarks("cpu")[:4], ids=lambda kernel: kernel.name
)
def test_flops_agree_with_torchs_own_counter(kernel: benchmarks.KernelBenchmark) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    call = kernel.make(torch.float32, CPU)[0]
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == kernel.flops


def test_both_libraries_compute_the_same_product() -> None:
    rows, weight = torch.randn(8, 16), torch.randn(4, 16)
    for call in benchmarks.products(rows, weight):
        assert torch.allclose(call(), rows @ weight.T, atol=1e-5)


def rows_of(**rates: float) -> list[dict[str, object]]:
    return [
        {"name": "linear 1x1", "precision": name, "flops_per_s": rate}
        for name, rate in rates.items()
    ]


def test_faster_measured_precision_is_chosen() -> None:
    peaks = {"fp32": 2.0, "bf16": 1.0}
    assert benchmarks.faster_precision(rows_of(fp32=1.0, bf16=3.0), peaks) == "bf16"
    assert benchmarks.faster_precision(rows_of(fp32=3.0, bf16=1.0), peaks) == "fp32"
    assert benchmarks.faster_precision(rows_of(fp32=1.0), peaks) == "fp32", (
        "bf16 was too slow to be measured"
    )
    assert benchmarks.faster_precision([], {"bf16": 1.0}) == "bf16"


def test_a_slow_device_is_spared() -> None:
    assert list(benchmarks.measure_kernels(torch.float32, CPU, peak=1e6)) == []


def test_precision_without_torch_support_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Represented by bool, for which torch has no matrix product."""
    monkeypatch.setattr(measure, "PRECISIONS", {"bits": torch.bool})
    monkeypatch.setattr(benchmarks, "memory_bandwidth_bps", lambda device: 1.0)
    notes = measure.Notes()
    figures = measure.speeds(CPU, notes)
    assert figures["peak_flops"] == {"bits": 0.0} and figures["kernels"] == []
    assert notes.lines and notes.lines[0].startswith("bits peak: ")


def test_a_disk_is_measured_and_left_clean(tmp_path: Path) -> None:
    figures = disk.rates(tmp_path)
    assert figures.write_bps > 1e5
    assert figures.read_bps is None or figures.read_bps > 1e5
    assert list(tmp_path.iterdir()) == []


def test_disk_without_direct_access_is_synced(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    monkeypatch.setattr(disk, "BLOCKS", 4)
    assert disk.rates(tmp_path).write_bps > 1e5
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert disk.rates(tmp_path).read_bps is None, "it would be the page cache's"


def test_a_full_or_forbidden_disk_is_named(tmp_path: Path, monkeypatch) -> None:
    notes = measure.Notes()
    assert notes.attempt("disk", lambda: disk.rates(tmp_path / "nowhere")) is None
    monkeypatch.setattr(disk, "BLOCKS", 1 << 40)
    assert notes.attempt("disk", lambda: disk.rates(tmp_path)) is None
    assert "No such file" in notes.lines[0]
    assert "MiB are free" in notes.lines[1]


def test_idle_power_is_measured_in_a_quiet_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "READING_S", 0.01)
    monkeypatch.setattr(psutil, "cpu_percent", lambda: 3.0)
    steady = Sensor("ina3221", "a test", 100.0, lambda: 4.5)
    assert idle.idle_watts(steady) == pytest.approx(4.5)
    still = Sensor("rapl", "a test", 100.0, None, (Counter(lambda: 7.0),))
    assert idle.idle_watts(still) is None
    silent = Sensor("battery", "a test", 100.0, lambda: None)
    assert idle.idle_watts(silent) is None
    monkeypatch.setattr(psutil, "cpu_percent", lambda: 60.0)
    assert idle.idle_watts(steady) is None, "the machine was busy"


def test_killed_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    """Agent and measuring process die during the measurement, as in a power cut."""
    command = [sys.executable, "-m", "workers.agent", "probe", "--json", "--threads", "1"]
    command += ["--state-dir", str(tmp_path)]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    child = wait_for(lambda: psutil.Process(first.pid).children())[0]
    wait_for(lambda: child.cpu_times().user > 0.5)
    os.kill(first.pid, signal.SIGKILL)
    child.kill()
    first.wait()
    assert list(tmp_path.iterdir()) == []
    assert probe.stored_profile(read_settings(str(tmp_path), environ={})) is None


@pytest.mark.parametrize("spoilt", ["{", "[]", '{"key": 1}', '"text"'])
def test_damaged_or_old_profile_is_measured_again(
    spoilt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_measure", lambda settings: {**PROFILE, "cores": 77})
    settings = read_settings(str(tmp_path), environ={})
    (tmp_path / probe.FILE).write_text(spoilt)
    assert probe.stored_profile(settings) is None
    assert probe.profile(settings)["cores"] == 77
    write_json(tmp_path / probe.FILE, {"key": probe.profile_key(0)[:-1], "profile": PROFILE})
    assert probe.profile(settings)["cores"] == 77, "it lacks the newer figures"
