"""Results of a round of a tree: the scores of each level and the bytes of each link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedcore.simulate.results import weighted_mean
from fedcore.train.evaluate import Evaluation
from fedcore.train.loop import TrainSummary


@dataclass(frozen=True)
class TreeLink:
    """Bytes of packed logits between a child and its parent in a round."""

    child: str
    parent: str
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class LevelResult:
    """One level, from the leaves (``end``) up.

    Leaves are evaluated on their own validation parts, all other nodes on that of the bridge.
    ``evaluations`` is empty if the round was not evaluated.
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
