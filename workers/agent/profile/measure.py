"""Measures this machine with torch, in a process of its own: JSON on standard output.

None of it is a data sheet's figure: it is what this device reaches with the software it has. What
cannot be measured is left out and named.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
import torch

from fedcore.compute.device import pick_device
from fedcore.hardware.machines import recognise
from workers.agent.power.account import gpu_of
from workers.agent.power.idle import idle_watts
from workers.agent.power.table import choose
from workers.agent.profile import benchmarks, disk
from workers.agent.profile.machine import cpu_name, machine_kind

T = TypeVar("T")
LOAD_S, BUSY_PERCENT = 0.5, 25.0
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Notes:
    """What was not measured, and why."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def attempt(self, name: str, call: Callable[[], T]) -> T | None:
        """The result; None where it failed, which is noted."""
        try:
            return call()
        except (OSError, RuntimeError, MemoryError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            self.lines.append(f"{name}: {first[:150]}")
            return None


def profile(threads: int, folder: Path) -> dict[str, Any]:
    """See docs/reference/protocol.md; takes some seconds. ``folder`` is on the disk to measure."""
    began = time.perf_counter()
    if threads:
        torch.set_num_threads(threads)
    device, notes = pick_device(), Notes()
    found = {**machine(device), "threads": torch.get_num_threads()}
    load = psutil.cpu_percent(LOAD_S)
    if load > BUSY_PERCENT:
        notes.lines.append(f"the machine was busy ({load:.0f} %): figures may be low, probe again")
    found |= power(found)  # before this process makes it busy
    found |= speeds(device, notes)
    rates = notes.attempt("disk", lambda: disk.rates(folder))
    if rates:
        found["disk_write_bps"] = rates.write_bps
        if rates.read_bps:
            found["disk_read_bps"] = rates.read_bps
    found["not_measured"] = notes.lines
    found["probe_s"] = round(time.perf_counter() - began, 2)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What it is, and the row of the planner's table that it is recognised as."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    found = {
        "kind": machine_kind(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "accelerator": gpu.name if gpu else "",
        "accelerator_memory_bytes": gpu.total_memory if gpu else 0,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if gpu:
        found["accelerator_uuid"] = _uuid(gpu)
    known = recognise(found)
    return {**found, "board": known.id if known else ""}


def _uuid(gpu: Any) -> str:
    """The card's name for its driver; '' where this torch does not tell."""
    told = str(getattr(gpu, "uuid", "") or "")
    return told if told.startswith("GPU-") or not told else f"GPU-{told}"


def power(found: Mapping[str, Any]) -> dict[str, Any]:
    sensor = choose(gpu_of(found))
    watts = idle_watts(sensor) if sensor else None
    idle = {} if watts is None else {"idle_watts": round(watts, 3)}
    return {"power_sensor": sensor.name if sensor else "", **idle}


def speeds(device: torch.device, notes: Notes) -> dict[str, Any]:
    """Peaks and kernels of each precision, the quicker precision, and memory bandwidth."""
    peaks: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for name, precision in PRECISIONS.items():
        peak = notes.attempt(f"{name} peak", lambda: benchmarks.peak_flops(precision, device))  # noqa: B023
        peaks[name] = peak or 0.0
        if peak:
            rows += _rows(name, precision, device, peak, notes)
    usable = {name: peak for name, peak in peaks.items() if peak}
    bandwidth = notes.attempt("memory", lambda: benchmarks.memory_bandwidth_bps(device))
    found: dict[str, Any] = {"peak_flops": peaks, "kernels": rows}
    if usable:
        found["precision"] = benchmarks.quicker(rows, usable)
    if bandwidth:
        found["memory_bandwidth_bps"] = bandwidth
    return found


def _rows(
    name: str, precision: torch.dtype, device: torch.device, peak: float, notes: Notes
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def measure() -> None:
        for kernel, figures in benchmarks.measured(precision, device, peak):
            rows.append({"name": kernel, "precision": name, **figures})

    notes.attempt(f"{name} kernels", measure)
    return rows


if __name__ == "__main__":
    print(json.dumps(profile(int(sys.argv[1]), Path(sys.argv[2]))))
