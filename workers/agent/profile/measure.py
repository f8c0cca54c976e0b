"""Measures this machine with torch, in a separate process: JSON on standard output.

No figure comes from a data sheet: each is what this device reaches with its software. What cannot
be measured is left out and listed.
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
from workers.agent.power.sensor_kinds import choose
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
        """The result; None where the call failed, which is noted."""
        try:
            return call()
        except (OSError, RuntimeError, MemoryError) as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            self.lines.append(f"{name}: {first_line[:150]}")
            return None


def profile(threads: int, folder: Path) -> dict[str, Any]:
    """See docs/reference/protocol.md; takes some seconds. ``folder`` is on the disk to measure."""
    began = time.perf_counter()
    if threads:
        torch.set_num_threads(threads)
    device, notes = pick_device(), Notes()
    figures = {**machine(device), "threads": torch.get_num_threads()}
    load = psutil.cpu_percent(LOAD_S)
    if load > BUSY_PERCENT:
        notes.lines.append(f"the machine was busy ({load:.0f} %): figures may be low, probe again")
    figures |= power(figures)  # before the benchmarks make the machine busy
    figures |= speeds(device, notes)
    rates = notes.attempt("disk", lambda: disk.rates(folder))
    if rates:
        figures["disk_write_bps"] = rates.write_bps
        if rates.read_bps:
            figures["disk_read_bps"] = rates.read_bps
    figures["not_measured"] = notes.lines
    figures["probe_s"] = round(time.perf_counter() - began, 2)
    return figures


def machine(device: torch.device) -> dict[str, Any]:
    """Names and sizes, and the row of the planner's table that matches."""
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    values = {
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
        uuid = str(getattr(gpu, "uuid", "") or "")  # not in every version of torch
        prefix = "" if uuid.startswith("GPU-") or not uuid else "GPU-"
        values["accelerator_uuid"] = prefix + uuid
    board = recognise(values)
    return {**values, "board": board.id if board else ""}


def power(figures: Mapping[str, Any]) -> dict[str, Any]:
    sensor = choose(gpu_of(figures))
    watts = idle_watts(sensor) if sensor else None
    idle = {} if watts is None else {"idle_watts": round(watts, 3)}
    return {"power_sensor": sensor.name if sensor else "", **idle}


def speeds(device: torch.device, notes: Notes) -> dict[str, Any]:
    """Peaks and kernels of each precision, the faster precision, and memory bandwidth."""
    peaks: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for name, precision in PRECISIONS.items():
        peak = notes.attempt(f"{name} peak", lambda: benchmarks.peak_flops(precision, device))  # noqa: B023
        peaks[name] = peak or 0.0
        if peak:
            rows += _kernel_rows(name, precision, device, peak, notes)
    usable = {name: peak for name, peak in peaks.items() if peak}
    bandwidth = notes.attempt("memory", lambda: benchmarks.memory_bandwidth_bps(device))
    figures: dict[str, Any] = {"peak_flops": peaks, "kernels": rows}
    if usable:
        figures["precision"] = benchmarks.faster_precision(rows, usable)
    if bandwidth:
        figures["memory_bandwidth_bps"] = bandwidth
    return figures


def _kernel_rows(
    name: str, precision: torch.dtype, device: torch.device, peak: float, notes: Notes
) -> list[dict[str, Any]]:
    """The kernels' rows, up to the first that failed."""
    rows: list[dict[str, Any]] = []

    def measure() -> None:
        for kernel, figures in benchmarks.measure_kernels(precision, device, peak):
            rows.append({"name": kernel, "precision": name, **figures})

    notes.attempt(f"{name} kernels", measure)
    return rows


if __name__ == "__main__":
    print(json.dumps(profile(int(sys.argv[1]), Path(sys.argv[2]))))
