"""Results of aggregation: a job's first artefact, and a round's new model."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedcore.model.initial import InitialInfo
from webapp.jobs.models import Artefact
from webapp.jobs.round_records import BufferedUpdate, ClusterFold, FoldRecord


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
    updates: list[BufferedUpdate] = field(default_factory=list)
    clusters: list[ClusterFold] = field(default_factory=list)
    aggregation_error: float | None = None
    seconds: float = 0.0
    bytes_read: int = 0

    def fold_record(self) -> FoldRecord:
        """As stored in ``Round.fold``."""
        record: FoldRecord = {"slots": self.slots}
        if self.updates:
            record["updates"] = self.updates
        if self.clusters:
            record["clusters"] = self.clusters
        record |= {
            "weights": {str(slot): weight for slot, weight in self.weights.items()},
            "update_norms": {str(slot): norm for slot, norm in self.update_norms.items()},
            "aggregation_error": self.aggregation_error,
            "seconds": self.seconds,
            "bytes_read": self.bytes_read,
        }
        return record
