"""Exact repeatability: the number of CPU threads, deterministic algorithms, seeds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run with ``count`` CPU threads (0: leave them as they are), then restore the number."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Refuse algorithms whose result varies from run to run, while the block runs.

    No code here reads memory it did not write, so torch need not fill fresh memory (25 % of time).
    """
    before = torch.are_deterministic_algorithms_enabled()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if enabled:
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
