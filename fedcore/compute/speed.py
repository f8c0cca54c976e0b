"""What this machine multiplies fastest with, measured in milliseconds at a model's shapes.

Flags of a CPU do not say it: one with AVX512_BF16 but without AMX was measured at 80 GFLOP/s in
bf16 and 150 in fp32, another at 430 and 110, and at 219 in fp32 through oneDNN instead of MKL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from fedcore.model.fast.linear import has_onednn, onednn

ROWS, WIDTH = 512, 512  # 0.27 GFLOP: a few ms, half a second on the slowest board
REPEATS = 15  # the best of them counts: other work on the machine only slows
WORTH = 1.3  # a way must be so much faster before it replaces the plain one


@lru_cache(maxsize=1)
def rates() -> dict[str, float]:
    """FLOP/s of a product on one core in ``fp32``, ``onednn`` (fp32 too) and ``bf16``."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))
    ways: dict[str, Callable[[], Tensor]] = {
        "fp32": partial(linear, x, weight),
        "bf16": partial(linear, x.bfloat16(), weight.bfloat16()),
    }
    if has_onednn():
        ways["onednn"] = partial(onednn, x, weight)
    work = 2.0 * ROWS * WIDTH * WIDTH
    with torch.no_grad(), one_thread():
        return {name: work / _best_s(way) for name, way in ways.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Two threads wait for each other where other work holds a core; one is slowed fairly."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _best_s(way: Callable[[], Tensor]) -> float:
    way()
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        way()
        best = min(best, time.perf_counter() - began)
    return best


def prefers_onednn() -> bool:
    """True where oneDNN multiplies fp32 clearly faster than what torch calls by itself."""
    found = rates()
    return found.get("onednn", 0.0) > WORTH * found["fp32"]


def prefers_bf16() -> bool:
    """True where bf16 products are clearly faster than the faster fp32 ones."""
    found = rates()
    return found["bf16"] > WORTH * max(found["fp32"], found.get("onednn", 0.0))


def peak_flops(precision: str, side: int = 2048) -> float:
    """FLOP/s of the best large square product in ``fp32`` or ``bf16`` on this CPU."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator).to(dtype) for _ in range(2))
    ways: list[Callable[[], Tensor]] = [partial(torch.mm, left, right)]
    if precision == "fp32" and has_onednn():
        ways.append(partial(onednn, left, right))
    with torch.no_grad():
        return 2.0 * side**3 / min(_best_s(way) for way in ways)
