"""The low-rank factors that devices ended with, read from their updates matrix by matrix.

One matrix of all devices is in memory at a time, whatever the number of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.aggregation.lowrank.products import Product
from fedcore.aggregation.lowrank.rules import TrainedProduct
from fedcore.aggregation.update_files import UpdateFile, WeightedUpdate
from fedcore.errors import WireError
from fedcore.model.received import SCALE_KEY, adapter_of
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import factor_name, factor_of, trained_shapes
from fedcore.wire.frame import FrameReader
from fedcore.wire.update import open_update


@dataclass(frozen=True)
class AdaptedMatrix:
    """One matrix of a global artefact: the names of its A and B, and of its merged base update."""

    module: str
    a: str
    b: str

    @property
    def merged(self) -> tuple[str, str]:
        """Names of the factors (out, R) and (R, in) of the base's change."""
        return factor_name(self.module, "MB"), factor_name(self.module, "MA")


class GlobalAdapter:
    """A global LoRA artefact, read tensor by tensor."""

    def __init__(self, frame: FrameReader, spec: JobSpec) -> None:
        self.frame = frame
        self.scale = float(frame.meta.get(SCALE_KEY, spec.adapter.scale))
        names: dict[str, dict[str, str]] = {}
        for name in frame:
            module, factor = factor_of(name)
            names.setdefault(module, {})[factor] = name
        self.matrices = [
            AdaptedMatrix(module, factors["A"], factors["B"])
            for module, factors in sorted(names.items())
        ]

    def factors(self, matrix: AdaptedMatrix) -> dict[str, Tensor]:
        return {name: self.frame[name] for name in (matrix.a, matrix.b)}

    def product(self, matrix: AdaptedMatrix) -> Product:
        """``s B A``."""
        return Product.of(self.frame[matrix.b], self.frame[matrix.a], self.scale)

    def merged(self, matrix: AdaptedMatrix) -> Product:
        """The update that was merged into the base of this matrix in earlier rounds."""
        up, down = matrix.merged
        if up not in self.frame:
            rows, columns = self.frame.shapes[matrix.b][0], self.frame.shapes[matrix.a][1]
            return Product.zero(rows, columns)
        return Product(self.frame[up].double(), self.frame[down].double())


@dataclass(frozen=True)
class LowRankUpdate:
    """One device's deltas by tensor name, and the job with its overrides (rank, scale, modules)."""

    spec: JobSpec
    deltas: Mapping[str, Tensor]

    def products(
        self, matrix: AdaptedMatrix, adapter: GlobalAdapter
    ) -> tuple[Product, Product] | None:
        """``s B A`` before and after its training; None where it did not train this matrix."""
        received = adapter_of(adapter.factors(matrix), adapter.scale, self.spec)
        if matrix.a not in received:
            return None
        scale = self.spec.adapter.scale
        a, b = received[matrix.a], received[matrix.b]
        after = b + self.deltas[matrix.b].float(), a + self.deltas[matrix.a].float()
        return Product.of(b, a, scale), Product.of(*after, scale)


def open_lowrank(
    update: UpdateFile, spec: JobSpec, adapter: GlobalAdapter
) -> tuple[LowRankUpdate, float]:
    """Open a device's update, and its Frobenius norm. Raises WireError where it is not finite."""
    device_spec = update.spec or spec
    deltas = open_update(update.path, trained_shapes(device_spec, adapter.frame.shapes))
    squares = []
    for name in sorted(deltas):
        numbers = deltas[name].double().reshape(-1)
        if not bool(torch.isfinite(numbers).all()):
            raise WireError(f"tensor {name!r} holds NaN or infinity; the update is refused")
        squares.append(float(torch.dot(numbers, numbers)))
    return LowRankUpdate(device_spec, deltas), math.sqrt(math.fsum(squares))


def trained_products(
    updates: Sequence[WeightedUpdate[LowRankUpdate]], matrix: AdaptedMatrix, adapter: GlobalAdapter
) -> list[TrainedProduct]:
    """The products of all devices that trained this matrix; their shares are renormalised to 1.

    Empty where no device with a share did.
    """
    pairs = [(update, update.data.products(matrix, adapter)) for update in updates if update.share]
    trained = [(update, pair) for update, pair in pairs if pair is not None]
    total = math.fsum(update.share for update, _ in trained)
    return [TrainedProduct(update.share / total, update.factor, *pair) for update, pair in trained]
