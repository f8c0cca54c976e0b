"""Measures this machine with torch, in a process of its own: JSON on standard output.

Peaks are the best rate of a large square product, bandwidth that of a large copy (read plus write).
Neither is a data sheet's figure: it is what this device reaches with the software it has.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from fedcore.train.hardware import has_bf16, pick_device

SECONDS_EACH = 0.8
LONGEST_S = 3.0  # what the four calls of one product may take
SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (4096, 8192)}


def peak_flops(precision: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the best of a few square products; a slow device is spared the larger ones."""
    best = 0.0
    for side in SIDES[device.type]:
        if best and 4 * _flops(side) / best > LONGEST_S:
            break
        best = max(best, _product_rate(side, precision, device))
    return best


def _flops(side: int) -> float:
    return 2.0 * side**3


def _product_rate(side: int, precision: torch.dtype, device: torch.device) -> float:
    left = torch.randn(side, side, device=device).to(precision)
    right = torch.randn(side, side, device=device).to(precision)
    seconds = SECONDS_EACH / len(SIDES[device.type])
    return _flops(side) / _best_s(lambda: torch.mm(left, right), device, seconds)


def memory_bandwidth_bps(device: torch.device) -> float:
    """Bytes per second, read plus write, of a copy far larger than any cache."""
    free = psutil.virtual_memory().available if device.type == "cpu" else 1 << 33
    count = min(128 << 20, free // 16) // 4
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * count / _best_s(lambda: target.copy_(source), device, 0.6)


def _best_s(call: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Shortest time of a call among those that fit in ``seconds``, and at least three."""
    call()
    _wait(device)
    best, until, count = float("inf"), time.perf_counter() + seconds, 0
    while count < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        _wait(device)
        best, count = min(best, time.perf_counter() - began), count + 1
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_kind() -> str:
    """The board's own name (Raspberry Pi, Jetson), else the product, else the architecture."""
    for path in ("/proc/device-tree/model", "/sys/devices/virtual/dmi/id/product_name"):
        try:
            text = Path(path).read_text("utf-8", "replace").strip("\0 \n")
        except OSError:
            continue
        if text:
            return text[:100]
    return f"{platform.system()} {platform.machine()}"


def profile(threads: int) -> dict[str, Any]:
    """See docs/protocol.md; takes a few seconds."""
    began = time.perf_counter()
    if threads:
        torch.set_num_threads(threads)
    device = pick_device()
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    bf16 = peak_flops(torch.bfloat16, device) if has_bf16(device) else 0.0
    return {
        "kind": machine_kind(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "accelerator": gpu.name if gpu else "",
        "accelerator_memory_bytes": gpu.total_memory if gpu else 0,
        "peak_flops": {"fp32": peak_flops(torch.float32, device), "bf16": bf16},
        "memory_bandwidth_bps": memory_bandwidth_bps(device),
        "probe_s": round(time.perf_counter() - began, 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    print(json.dumps(profile(int(sys.argv[1]))))
