"""Which device and precision local work uses, and exact repeatability where a job asks for it."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch.utils import deterministic

# The last one is Arm's. AVX512_BF16 without AMX does not count: measured on such a CPU, torch 2.13
# multiplies matrices at 80 GFLOP/s in bf16 where fp32 reaches 150.
CPU_BF16_FLAGS = frozenset({"amx_bf16", "bf16"})


def pick_device() -> torch.device:
    """The accelerator if torch sees one (CUDA), else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 where the hardware computes in it, else fp32; fp16 is never picked."""
    if wanted == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]


def has_bf16(device: torch.device) -> bool:
    """True where the hardware computes bf16 products, and faster than fp32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(CPU_BF16_FLAGS & _cpu_flags())


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
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


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory used: of the accelerator since the round began, else of this process ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
