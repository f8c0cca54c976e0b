"""What aggregation makes: a job's first artefact, and the result of a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedcore.model.initial import InitialInfo
from webapp.jobs.models import Artefact


@dataclass(frozen=True)
class First:
    """What a job begins with. ``info.size`` are the bytes that each device will send.

    ``noted`` is kept in ``Job.model_info`` with the model's figures.
    """

    info: InitialInfo
    artefact: Artefact
    noted: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A round's result as it is stored, and what ``Round.fold`` keeps of how it was made.

    ``slots`` sent what was folded; ``weights`` and ``update_norms`` are by slot (see FoldReport).
    """

    global_artefact: Artefact
    state_artefact: Artefact | None = None
    step_artefact: Artefact | None = None
    slots: list[int] = field(default_factory=list)
    weights: dict[int, float] = field(default_factory=dict)
    update_norms: dict[int, float] = field(default_factory=dict)
    updates: list[dict[str, object]] = field(default_factory=list)
    clusters: Sequence[Mapping[str, object]] = ()
    aggregation_error: float | None = None
    seconds: float = 0.0
    bytes_read: int = 0

    def figures(self) -> dict[str, object]:
        """As ``Round.fold`` keeps it."""
        return {
            "slots": self.slots,
            **({"updates": self.updates} if self.updates else {}),
            **({"clusters": self.clusters} if self.clusters else {}),
            "weights": self.weights,
            "update_norms": self.update_norms,
            "aggregation_error": self.aggregation_error,
            "seconds": self.seconds,
            "bytes_read": self.bytes_read,
        }
