"""The fastest matrix product on this machine, measured in milliseconds at a model's shapes.

CPU flags do not predict it: a CPU with AVX512_BF16 but without AMX was measured at 80 GFLOP/s in
bf16 and 150 in fp32, another at 430 and 110, and at 219 in fp32 through oneDNN instead of MKL.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from fedcore.compute.determinism import torch_threads
from fedcore.model.fast.linear import has_onednn, onednn

ROWS, WIDTH = 512, 512  # 0.27 GFLOP: a few ms, half a second on the slowest board
REPEATS = 15  # the best one counts: other work on the machine only slows it
MIN_SPEEDUP = 1.3  # before a product replaces the plain one


@lru_cache(maxsize=1)
def rates() -> dict[str, float]:
    """FLOP/s of a product on one core in ``fp32``, ``onednn`` (fp32 too) and ``bf16``."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))
    products: dict[str, Callable[[], Tensor]] = {
        "fp32": partial(linear, x, weight),
        "bf16": partial(linear, x.bfloat16(), weight.bfloat16()),
    }
    if has_onednn():
        products["onednn"] = partial(onednn, x, weight)
    flops = 2.0 * ROWS * WIDTH * WIDTH
    with torch.no_grad(), torch_threads(1):
        return {name: flops / _best_s(product) for name, product in products.items()}


def _best_s(product: Callable[[], Tensor]) -> float:
    product()
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - began)
    return best


def prefers_onednn() -> bool:
    """True where oneDNN multiplies fp32 clearly faster than what torch calls by itself."""
    flops = rates()
    return flops.get("onednn", 0.0) > MIN_SPEEDUP * flops["fp32"]


def prefers_bf16() -> bool:
    """True where bf16 products are clearly faster than the faster fp32 ones."""
    flops = rates()
    return flops["bf16"] > MIN_SPEEDUP * max(flops["fp32"], flops.get("onednn", 0.0))


def peak_flops(precision: str, side: int = 2048) -> float:
    """FLOP/s of the best large square product in ``fp32`` or ``bf16`` on this CPU."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(dtype) for _ in range(2))
    products: list[Callable[[], Tensor]] = [partial(torch.mm, a, b)]
    if precision == "fp32" and has_onednn():
        products.append(partial(onednn, a, b))
    with torch.no_grad():
        return 2.0 * side**3 / min(_best_s(product) for product in products)
