"""Results of simulated rounds, and events while a simulation runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedcore.aggregation.fold_task import FoldReport
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary

MEASURES = ("loss", "rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class RoundResult:
    """One round; round 0 is the evaluation before training.

    ``mean``: loss and ROUGE (percent), weighted by the devices' validation examples; empty if the
    round was not evaluated (``evaluation`` of the specification). Bytes are those of the round:
    updates up, global weights (or steps) down. ``virtual_s``: the fleet's clock when the model was
    ready (0 without a fleet). ``staleness``: age of each folded update in versions, in the order of
    the sum. ``levels``: bytes of updates on each level of a tree, from the server down; () without
    one. ``measured``: the method's metrics of each device's training, such as PFIT's rewards.
    """

    number: int
    sha256: str
    evaluations: Mapping[str, Evaluation]
    mean: Mapping[str, float]
    training: Mapping[str, TrainSummary]
    fold: FoldReport | None
    bytes_up: int
    bytes_down: int
    seconds: float
    virtual_s: float = 0.0
    staleness: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class SimulationEvent:
    """An event of a simulation. ``kind``: evaluated, planned, trained or round."""

    kind: str
    round_number: int
    device: str
    value: object


OnEvent = Callable[[SimulationEvent], None]


def ignore(event: SimulationEvent) -> None:
    """An ``OnEvent`` that does nothing."""
    del event


def global_file(workdir: Path, number: int) -> Path:
    """The global weights after a round."""
    return workdir / f"global-{number}.safetensors"


def weighted_mean(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Mean loss and ROUGE over devices, weighted by their validation examples.

    Includes the method's metrics that all devices have.
    """
    total = sum(item.examples for item in evaluations)
    values = [item.values() for item in evaluations]
    shared = [key for key in evaluations[0].more if all(key in row for row in values)]
    return {
        key: sum(row[key] * row["examples"] for row in values) / total
        for key in (*MEASURES, *shared)
    }
