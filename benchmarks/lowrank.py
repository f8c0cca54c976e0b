"""FlexLoRA's redistribution by thin factors and by the SVD of the dense mean, on one core.

The devices' adapters are normal noise, scaled as in LoRA. The dense method forms the mean
W = sum p_i s_i B_i A_i in fp32, takes its SVD and keeps the served rank. The difference
is that of the product by thin factors from the product by a dense SVD in fp64.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from fedcore.aggregation.lowrank.products import Product, spectrum, total
from fedcore.architecture.sizes import KNOWN
from fedcore.compute.determinism import torch_threads

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """A matrix with an adapter: its model, name and shape."""

    model: str
    name: str
    rows: int
    columns: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models = ["google/flan-t5-base", "google/flan-t5-large"]
    parser.add_argument("--models", nargs="+", default=models, choices=tuple(KNOWN))
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--rank", type=int, default=8, help="of every device, and as served")
    parser.add_argument("--repeat", type=int, default=5, help="the best time counts")


def run(args: argparse.Namespace) -> int:
    with torch_threads(1), torch.no_grad():
        print(f"{args.devices} devices of rank {args.rank}, served at {args.rank}; one core, best "
              f"of {args.repeat}\n")  # fmt: skip
        print("| model | matrix | shape | dense ms | factors ms | times | difference |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        # Attention's projections and the first feed-forward matrix.
        sides = []
        for model in args.models:
            sizes = KNOWN[model]
            sides.append(Side(model, "q, v", sizes.inner, sizes.d_model))
            sides.append(Side(model, "wi_0", sizes.d_ff, sizes.d_model))
        for side in sides:
            print(_row(side, args), flush=True)
    return 0


def _row(side: Side, args: argparse.Namespace) -> str:
    parts = adapters(side.rows, side.columns, args.devices, args.rank)
    dense_s, _ = _best(lambda: by_dense(parts, args.rank), args.repeat)
    factors_s, (b, a) = _best(lambda: by_factors(parts, args.rank), 4 * args.repeat)
    exact = [(one.double(), two.double()) for one, two in parts]
    exact_b, exact_a = by_dense(exact, args.rank)
    exact_product = exact_b @ exact_a
    off = float((b.double() @ a.double() - exact_product).norm() / exact_product.norm())
    cells = (
        side.model.removeprefix("google/"), side.name, f"{side.rows} x {side.columns}",
        f"{1e3 * dense_s:.1f}", f"{1e3 * factors_s:.1f}", f"{dense_s / factors_s:.0f}",
        f"{off:.1e}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def adapters(rows: int, columns: int, devices: int, rank: int) -> list[tuple[Tensor, Tensor]]:
    """(p s B, A) of each device: B (rows, rank), A (rank, columns), fp32."""
    draw = torch.Generator().manual_seed(0)
    share = 2.0 / devices
    return [
        (
            share * 1e-2 * torch.randn(rows, rank, generator=draw),
            torch.randn(rank, columns, generator=draw) / columns**0.5,
        )
        for _ in range(devices)
    ]


def by_dense(parts: Sequence[tuple[Tensor, Tensor]], rank: int) -> tuple[Tensor, Tensor]:
    """The served B and A, through the dense mean and its SVD, in the type of the parts."""
    mean = torch.cat([b for b, _ in parts], 1) @ torch.cat([a for _, a in parts], 0)
    u, values, v = torch.linalg.svd(mean, full_matrices=False)
    return u[:, :rank] * values[:rank], v[:rank]


def by_factors(parts: Sequence[tuple[Tensor, Tensor]], rank: int) -> tuple[Tensor, Tensor]:
    """The same by the fold's method: fp64 inside, fp32 output."""
    served = spectrum(total([Product.of(b, a) for b, a in parts]), rank).cut(rank)
    return served.up.float(), served.down.float()


def _best(work: Callable[[], T], repeat: int) -> tuple[float, T]:
    work()
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result
