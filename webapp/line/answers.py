"""The answers to acceptances (docs/reference/protocol.md)."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, TypedDict
from uuid import UUID

from fedcore.formats.line_bodies import SMALL_BYTES
from fedcore.rounds.types import Task
from webapp.jobs.artefacts import update_format
from webapp.jobs.artefacts.store import small_bytes
from webapp.jobs.artefacts.update_format import ModelReference
from webapp.jobs.lifecycle import cluster_folds
from webapp.jobs.lifecycle.cluster_folds import FoldInput
from webapp.jobs.lifecycle.round_rows import is_buffered, state_before
from webapp.jobs.models import Artefact, Assignment, Job, Participant
from webapp.line.calls import weights_of

log = logging.getLogger(__name__)


class ArtefactReference(TypedDict):
    sha256: str
    size_bytes: int


# The key ``global`` is a Python keyword.
AcceptAnswer = TypedDict(
    "AcceptAnswer",
    {
        "assignment": str,
        "job": str,
        "job_name": str,
        "round": int,
        "task": str,
        "attempt": int,
        "slot": int,
        "dataset": str,
        "spec": dict[str, Any],
        "tailoring": dict[str, Any],
        "model_fingerprint": str,
        "global": ModelReference,
        "state": ArtefactReference | None,
        "wire": dict[str, Any],
        "lease_s": float,
        "deadline_at": str | None,
        "draw": int,
        "max_update_bytes": int,
        "fold": FoldInput | None,
    },
)


def _model(job: Job, weights: Artefact) -> ModelReference:
    """The reference to a model, with its bytes if they are few and can be read here."""
    model = update_format.model_of(job, weights)
    if weights.size_bytes > SMALL_BYTES:
        return model
    try:
        model["data"] = b64encode(small_bytes(weights.sha256)).decode()
    except OSError as error:  # the download says to the device what is wrong
        log.warning("the model %s does not travel within the answer: %s", weights.sha256, error)
    return model


class AcceptAnswers:
    """Answers to the acceptance of assignments, with what they share read once."""

    def __init__(self, assignments: Sequence[Assignment]) -> None:
        keys = {(item.round.job_id, item.slot) for item in assignments}
        participants = Participant.objects.filter(
            job__in={job for job, _ in keys}, slot__in={slot for _, slot in keys}
        )
        self._participants = {(item.job_id, item.slot): item for item in participants}
        self._offers = update_format.offers(assignments)
        self._states: dict[tuple[int, str], Artefact | None] = {}
        self._models: dict[tuple[UUID, str], ModelReference] = {}

    def of(self, assignment: Assignment) -> AcceptAnswer:
        round_, job = assignment.round, assignment.round.job
        weights = weights_of(assignment)
        participant = self._participants[job.pk, assignment.slot]
        state_key = (round_.pk, assignment.task)
        if state_key not in self._states:
            self._states[state_key] = server_state(assignment)
        state = self._states[state_key]
        model_key = (job.pk, weights.sha256)
        if model_key not in self._models:
            self._models[model_key] = _model(job, weights)
        # An asynchronous round does not end for a late device, so it has no deadline.
        deadline_at = None if is_buffered(round_) else round_.deadline_at
        return {
            "assignment": str(assignment.pk),
            "job": str(job.pk),
            "job_name": job.name,
            "round": round_.number,
            "task": assignment.task,
            "attempt": assignment.attempt,
            "slot": assignment.slot,
            "dataset": participant.dataset,
            "spec": job.spec,
            "tailoring": participant.tailoring,
            "model_fingerprint": job.model_fingerprint,
            "global": self._models[model_key],
            "state": {"sha256": state.sha256, "size_bytes": state.size_bytes} if state else None,
            "wire": self._offers[assignment.pk].to_dict(),
            "lease_s": job.job_spec.participation.lease_s,
            "deadline_at": deadline_at.isoformat() if deadline_at else None,
            "draw": assignment.attempt - 1 if is_buffered(round_) else 0,
            "max_update_bytes": update_format.max_update_bytes(assignment, weights),
            "fold": cluster_folds.fold_input(assignment),
        }


def server_state(assignment: Assignment) -> Artefact | None:
    """The strategy's state before the round, if the strategy sends it to training devices."""
    job = assignment.round.job
    if assignment.task != Task.TRAIN.value or not job.job_spec.strategy.family.serves_state:
        return None
    return state_before(assignment.round)
