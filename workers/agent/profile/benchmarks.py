"""Kernel benchmarks in torch: square matrix products, and the products that make up a FLAN-T5.

Every figure is of the fastest of a few calls. On a CPU torch has two libraries for products, its
BLAS and oneDNN, and either may be slower by half. The faster one counts, because training selects
it too (``fedcore.train.kernels``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch.nn import functional

from fedcore.model.fast.linear import has_onednn, onednn

SQUARE_S = {"cpu": 0.1, "cuda": 0.4}  # a GPU needs a while to reach its clock
KERNEL_S = 0.12
BATCH_S = 0.005  # calls that a GPU gets at once, because synchronising takes time as well
LONGEST_S = 0.5  # of one call; a slow device skips longer ones
SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (4096, 8192)}
TOKENS = {"cpu": 2048, "cuda": 16384}  # of a batch
DECISIVE = "linear"  # the kernels that decide the precision: most of a step

Call = Callable[[], Any]


@dataclass(frozen=True)
class KernelBenchmark:
    """``numbers`` counts those read or written at least once."""

    name: str
    flops: float
    numbers: float
    make: Callable[[torch.dtype, torch.device], list[Call]]

    def measure(self, precision: torch.dtype, device: torch.device) -> dict[str, float]:
        """FLOP/s, and FLOPs per byte that must move. Raises RuntimeError where torch cannot."""
        seconds = min(best_s(call, device, KERNEL_S) for call in self.make(precision, device))
        size = torch.empty(0, dtype=precision).element_size()
        return {
            "flops_per_s": self.flops / seconds,
            "flops_per_byte": round(self.flops / (self.numbers * size), 3),
        }


def linear(tokens: int, inner: int, outer: int, name: str = "linear") -> KernelBenchmark:
    """A linear layer's product for so many tokens."""

    def make(precision: torch.dtype, device: torch.device) -> list[Call]:
        rows = torch.randn(tokens, inner, device=device).to(precision)
        weight = torch.randn(outer, inner, device=device).to(precision)
        return products(rows, weight)

    numbers = tokens * inner + inner * outer + tokens * outer
    return KernelBenchmark(f"{name} {inner}x{outer}", 2.0 * tokens * inner * outer, numbers, make)


def attention(heads: int, length: int, width: int) -> KernelBenchmark:
    """Attention scores and the weighted sum, for all heads of a batch, without softmax."""

    def make(precision: torch.dtype, device: torch.device) -> list[Call]:
        query, key, value = (
            torch.randn(heads, length, width, device=device).to(precision) for _ in range(3)
        )
        return [lambda: torch.bmm(torch.bmm(query, key.transpose(1, 2)), value)]

    flops = 4.0 * heads * length * length * width
    numbers = heads * (4 * length * width + 2 * length * length)
    return KernelBenchmark(f"attention {heads}x{length}x{width}", flops, numbers, make)


def norm(tokens: int, width: int) -> KernelBenchmark:
    """T5's layer norm: square, mean, two products; very few FLOPs per byte."""

    def make(precision: torch.dtype, device: torch.device) -> list[Call]:
        rows = torch.randn(tokens, width, device=device).to(precision)
        scale = torch.ones(width, device=device, dtype=precision)
        return [lambda: functional.rms_norm(rows, (width,), scale)]

    return KernelBenchmark(f"norm {width}", 4.0 * tokens * width, 2 * tokens * width + width, make)


def kernel_benchmarks(kind: str) -> tuple[KernelBenchmark, ...]:
    """Shapes of FLAN-T5 small and base: linear layers, attention, vocabulary, norm."""
    tokens = TOKENS[kind]
    return (
        linear(tokens, 512, 1024),
        linear(tokens, 768, 2048),
        attention(tokens // 256 * 6, 256, 64),
        linear(tokens // 8, 512, 32128, "vocabulary"),
        norm(tokens, 512),
    )


def products(rows: torch.Tensor, weight: torch.Tensor) -> list[Call]:
    """``rows`` times the transpose of ``weight``, by each of torch's libraries that can."""
    calls: list[Call] = [lambda: functional.linear(rows, weight)]
    if rows.device.type == "cpu" and has_onednn():
        calls.append(lambda: onednn(rows, weight))
    return calls


def peak_flops(precision: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the best of a few square products; a slow device skips the larger ones."""
    best = 0.0
    for side in SIDES[device.type]:
        if best and 2.0 * side**3 / best > LONGEST_S:
            break
        square = linear(side, side, side)
        for call in square.make(precision, device):
            best = max(best, square.flops / best_s(call, device, SQUARE_S[device.type]))
    return best


def measure_kernels(
    precision: torch.dtype, device: torch.device, peak: float
) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and figures of each kernel that is fast enough at this peak."""
    for kernel in kernel_benchmarks(device.type):
        if kernel.flops / peak < LONGEST_S:
            yield kernel.name, kernel.measure(precision, device)


def faster_precision(rows: list[dict[str, Any]], peaks: dict[str, float]) -> str:
    """The precision whose linear kernels are fastest; else the one with the highest peak."""
    rates: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["name"].startswith(DECISIVE):
            rates.setdefault(row["name"], {})[row["precision"]] = row["flops_per_s"]
    complete = [row for row in rates.values() if set(row) == set(peaks)]
    if not complete:
        return max(peaks, key=lambda name: peaks[name])
    # Seconds per FLOP of each kernel, so that the large ones do not decide alone.
    return min(peaks, key=lambda name: sum(1 / row[name] for row in complete))


def memory_bandwidth_bps(device: torch.device) -> float:
    """Bytes per second, read plus write, of a copy far larger than any cache."""
    free = psutil.virtual_memory().available if device.type == "cpu" else 1 << 33
    count = min(128 << 20, free // 16) // 4
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * count / best_s(lambda: target.copy_(source), device, 0.6)


def best_s(call: Call, device: torch.device, seconds: float) -> float:
    """Shortest time per call of those that fit in ``seconds``, after a warm-up call.

    At least two calls; ten where they take at most three times as long, as a few may be delayed.
    """
    _seconds(call, device, 1)
    batch = 1
    if device.type == "cuda":
        batch = max(1, min(100, int(BATCH_S / _seconds(call, device, 1))))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - began < seconds * (3 if len(times) < 10 else 1):
        times.append(_seconds(call, device, batch))
    return min(times)


def _seconds(call: Call, device: torch.device, count: int) -> float:
    """Seconds per call, averaged over ``count`` calls."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / count
