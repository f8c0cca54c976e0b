"""The device and precision of local work, and the memory it may use."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from fedcore.compute.speed import prefers_bf16

PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def pick_device() -> torch.device:
    """The accelerator if torch sees one (CUDA), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 where the hardware is faster in it, else fp32; fp16 is never picked."""
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def has_bf16(device: torch.device) -> bool:
    """True where the hardware computes bf16 products faster than fp32 ones; a CPU is measured."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return prefers_bf16()


def free_memory_bytes(device: torch.device) -> int | None:
    """Memory this process may use in all: its own and what is free; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        resident_pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    except OSError:
        return None
    free = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return None if free is None else free * 1024 + resident_pages * resource.getpagesize()


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory: of the accelerator since the round began, else of this process ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
