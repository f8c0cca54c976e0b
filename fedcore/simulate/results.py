"""What a simulation says: results of rounds, and events while it runs."""

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

    ``mean`` weights each device's loss and ROUGE (percent) by its validation examples; it is empty
    where the round did not evaluate (``evaluation`` of the specification). Bytes are those that
    travelled while the round was made: updates up, global weights (or steps) down. ``virtual_s`` is
    when its model was there by the fleet's clock (0 without a fleet), ``staleness`` how many
    versions old each folded update was, in the order of the sum. ``levels``: bytes of updates on
    the links of a tree, into the server, into the heads below it, and so on; () without one.
    ``measured``: what the method tells of each device's training, such as PFIT's rewards.
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
    """Something that happened: ``kind`` is evaluated, planned, trained or round."""

    kind: str
    round_number: int
    device: str
    value: object


OnEvent = Callable[[SimulationEvent], None]


def global_file(workdir: Path, number: int) -> Path:
    """The global weights after a round."""
    return workdir / f"global-{number}.safetensors"


def weighted_mean(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Mean loss and ROUGE over devices, weighted by their validation examples.

    What a method measures beside is among them where all devices did.
    """
    total = sum(item.examples for item in evaluations)
    values = [item.values() for item in evaluations]
    shared = [key for key in evaluations[0].more if all(key in found for found in values)]
    return {
        key: sum(found[key] * found["examples"] for found in values) / total
        for key in (*MEASURES, *shared)
    }
