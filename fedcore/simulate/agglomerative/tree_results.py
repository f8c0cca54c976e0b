"""What a round of a tree was: every level's figures and every link's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedcore.simulate.results import weighted_mean
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary


@dataclass(frozen=True)
class TreeLink:
    """What travelled between a child and its parent in a round: packed logits, nothing else."""

    child: str
    parent: str
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class LevelResult:
    """One level, from the leaves (``end``) up. Leaves are evaluated on their own validation parts,
    all other nodes on the held-back part of the bridge; empty where the round did not evaluate.
    """

    name: str
    model: str
    evaluations: Mapping[str, Evaluation]
    training: Mapping[str, TrainSummary]

    @property
    def mean(self) -> dict[str, float]:
        """Loss and ROUGE (percent), weighted by validation examples."""
        return weighted_mean(list(self.evaluations.values())) if self.evaluations else {}


@dataclass(frozen=True)
class TreeRound:
    """One round; round 0 is before any training. ``sha256`` are the nodes' weights after it."""

    number: int
    levels: tuple[LevelResult, ...]
    links: tuple[TreeLink, ...]
    sha256: Mapping[str, str]
    seconds: float

    @property
    def bytes_up(self) -> int:
        return sum(link.bytes_up for link in self.links)

    @property
    def bytes_down(self) -> int:
        return sum(link.bytes_down for link in self.links)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        levels = [{**asdict(level), "mean": level.mean} for level in self.levels]
        return {**asdict(self), "levels": levels}
