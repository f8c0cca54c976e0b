"""What a fold says of itself, whatever its rule."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.wire.frame import FrameInfo


@dataclass(frozen=True)
class FoldReport:
    """What a fold did. Norms (before filters) and weights (sum 1) are by slot.

    Where a slot has several updates, the weight is that of all, the norm that of the last.
    ``aggregation_error`` is |served - mean(s B A)| / |mean(s B A)| over all adapted matrices,
    before the server stage; None for full fine-tuning, for folds that are no mean, and where
    nothing was learned at all. ``bytes_read`` counts the updates' bytes once.
    """

    update_norms: dict[int, float]
    weights: dict[int, float]
    aggregation_error: float | None
    seconds: float
    bytes_read: int
    global_frame: FrameInfo
    state_frame: FrameInfo
