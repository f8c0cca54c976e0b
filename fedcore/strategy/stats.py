"""What is known of an update before its tensors are seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UpdateStats:
    """What may be known of an update before its tensors are seen.

    ``norm`` (Frobenius), its share of the weight (sum 1), the optimizer steps its device took, and
    the loss of the model the device received on its training data; 0 steps and None: not told.
    """

    norm: float
    share: float = 1.0
    steps: int = 0
    loss_before: float | None = None
