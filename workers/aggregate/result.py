"""Results of aggregation: a job's first artefact, and a round's new model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedcore.model.initial import InitialInfo
from webapp.jobs.models import Artefact


@dataclass(frozen=True)
class InitialArtefact:
    """A job's first artefact. ``info.size`` is the bytes of each device's update.

    ``extra_info`` is stored in ``Job.model_info`` with the model's figures.
    """

    info: InitialInfo
    artefact: Artefact
    extra_info: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class FoldedRound:
    """A round's stored artefacts, and its record for ``Round.fold``.

    ``slots`` are those of the folded updates; ``weights`` and ``update_norms`` are by slot (see
    FoldReport).
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

    def fold_record(self) -> dict[str, object]:
        """As stored in ``Round.fold``."""
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
