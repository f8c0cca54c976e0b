"""What devices ended with, read from their updates matrix by matrix.

One matrix of all devices is in memory at a time, whatever the number of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcore.aggregation.lowrank.products import Product
from fedcore.aggregation.lowrank.rules import TrainedProduct
from fedcore.errors import WireError
from fedcore.model.received import SCALE_KEY, adapter_of
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import factor_name, factor_of
from fedcore.wire.frame import FrameReader

Key = tuple[int, int]


@dataclass(frozen=True)
class AdaptedMatrix:
    """One matrix of a global artefact: its names of A and B, and of what the base has taken in."""

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
            AdaptedMatrix(module, found["A"], found["B"]) for module, found in sorted(names.items())
        ]

    def factors(self, matrix: AdaptedMatrix) -> dict[str, Tensor]:
        return {name: self.frame[name] for name in (matrix.a, matrix.b)}

    def product(self, matrix: AdaptedMatrix) -> Product:
        """``s B A``."""
        return Product.of(self.frame[matrix.b], self.frame[matrix.a], self.scale)

    def merged(self, matrix: AdaptedMatrix) -> Product:
        """What the base of this matrix has taken in."""
        up, down = matrix.merged
        if up not in self.frame:
            rows, columns = self.frame.shapes[matrix.b][0], self.frame.shapes[matrix.a][1]
            return Product.zero(rows, columns)
        return Product(self.frame[up].double(), self.frame[down].double())


@dataclass(frozen=True)
class LowRankUpdate:
    """One device's update: the job as it was given it, its deltas, its share and factor."""

    key: Key
    spec: JobSpec
    deltas: Mapping[str, Tensor]
    share: float
    factor: float

    def products(
        self, matrix: AdaptedMatrix, whole: GlobalAdapter
    ) -> tuple[Product, Product] | None:
        """``s B A`` before and after its training; None where it did not train this matrix."""
        own = adapter_of(whole.factors(matrix), whole.scale, self.spec)
        if matrix.a not in own:
            return None
        scale = self.spec.adapter.scale
        a, b = own[matrix.a], own[matrix.b]
        after = b + self.deltas[matrix.b].float(), a + self.deltas[matrix.a].float()
        return Product.of(b, a, scale), Product.of(*after, scale)


def parts(
    devices: list[LowRankUpdate], matrix: AdaptedMatrix, whole: GlobalAdapter
) -> list[TrainedProduct]:
    """The parts of all who trained this matrix; their shares are renormalised to 1.

    Empty where nobody with a share did.
    """
    found = [(device, device.products(matrix, whole)) for device in devices if device.share]
    trained = [(device, pair) for device, pair in found if pair is not None]
    weight = math.fsum(device.share for device, _ in trained)
    return [TrainedProduct(device.share / weight, device.factor, *pair) for device, pair in trained]


def norm_of(deltas: Mapping[str, Tensor]) -> float:
    """Frobenius norm of an update. Raises WireError where a number of it is not finite."""
    return math.sqrt(math.fsum(_squares(deltas)))


def _squares(deltas: Mapping[str, Tensor]) -> Iterator[float]:
    for name in sorted(deltas):
        wide = deltas[name].double().reshape(-1)
        if not bool(torch.isfinite(wide).all()):
            raise WireError(f"tensor {name!r} holds NaN or infinity; the update is refused")
        yield float(torch.dot(wide, wide))
