"""Which device and precision local work uses, and exact repeatability where a job asks for it."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils import deterministic

from fedcore.compute.speed import prefers_bf16

PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def pick_device() -> torch.device:
    """The accelerator if torch sees one (CUDA), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 where the hardware is faster in it, else fp32; fp16 is never picked."""
    if wanted == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]


def has_bf16(device: torch.device) -> bool:
    """True where the hardware computes bf16 products faster than fp32 ones; a CPU is measured."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return prefers_bf16()


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run with ``count`` CPU threads (0: leave it as it is), then set the former number again."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Refuse algorithms whose result varies from run to run while the block runs.

    Nothing here reads memory it did not write, so torch need not fill fresh memory (25 % of time).
    """
    before = torch.are_deterministic_algorithms_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def seed_torch(seed: int) -> None:
    """Seed every generator that dropout may draw from (CPU and accelerators)."""
    torch.manual_seed(seed)


def free_memory_bytes(device: torch.device) -> int | None:
    """What this process may have in all: its own memory and what is free; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        own = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    except OSError:
        return None
    free = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    return None if free is None else free * 1024 + own * resource.getpagesize()


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used: of the accelerator since the round began, else of this process ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
