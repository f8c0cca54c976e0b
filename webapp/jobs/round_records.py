"""JSON that a round stores: ``Round.fold`` and ``Round.evaluation``; {} until there is any."""

from __future__ import annotations

from typing import TypedDict


class ClusterFold(TypedDict):
    """The update of an aggregating device. ``level`` 1 sends to the server.

    ``slots`` and ``bytes_in``: of the updates that it folded; ``bytes_up``: of the one it sent.
    """

    slot: int
    level: int
    slots: list[int]
    examples: int
    bytes_in: int
    bytes_up: int


class BufferedUpdate(TypedDict):
    """An update of an asynchronous job: the version it started from and how much it counted.

    ``assignment``: its id; ``base`` and ``attempt``: the round that it belongs to.
    """

    slot: int
    assignment: str
    base: int
    attempt: int
    staleness: int
    discount: float


class FoldRecord(TypedDict, total=False):
    """A fold. ``slots``: of its updates; ``weights`` (sum 1) and ``update_norms`` (L2) by slot.

    ``updates``: in asynchronous jobs only; ``clusters``: where devices aggregate.
    ``aggregation_error``: see ``fedcore.aggregation.fold_task.FoldReport``.
    """

    slots: list[int]
    updates: list[BufferedUpdate]
    clusters: list[ClusterFold]
    weights: dict[str, float]
    update_norms: dict[str, float]
    aggregation_error: float | None
    seconds: float
    bytes_read: int


class MeanScores(TypedDict, total=False):
    """Means weighted by validation examples, over the devices that evaluated; F1 in percent.

    ``examples``: in total. ``personal_*``: of personalised models, where the method has any.
    """

    loss: float
    rouge1: float
    rouge2: float
    rougeL: float
    examples: float
    personal_loss: float
    personal_rouge1: float
    personal_rouge2: float
    personal_rougeL: float


class EvaluationRecord(MeanScores, total=False):
    """An evaluation; ``devices``: how many took part."""

    devices: float
