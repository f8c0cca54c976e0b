"""Jobs, rounds, assignments, artefacts and events: the state of the federation.

A phase changes only by a guarded UPDATE (``webapp.jobs.lifecycle.transitions``), never through
``save()``.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.types import AssignmentPhase, RoundPhase, Task
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import load_spec
from webapp.devices.models import Device
from webapp.jobs.round_records import EvaluationRecord, FoldRecord


def _choices(kind: type) -> list[tuple[str, str]]:
    return [(item.value, item.value) for item in kind]  # type: ignore[attr-defined]


class ArtefactKind(models.TextChoices):
    GLOBAL = "global", "global model"
    UPDATE = "update", "update"
    STEP = "step", "step between models"
    STRATEGY_STATE = "strategy_state", "strategy state"
    MERGED = "merged", "merged model"
    SHARD = "shard", "shard of a fold"
    LOGITS = "logits", "logits"


class Artefact(models.Model):
    """Immutable bytes by SHA-256. The storage holds them under ``Artefact.path_of(sha256)``.

    ``webapp.jobs.artefacts.garbage_collection`` removes bytes that no job needs. The row stays for
    as long as a round or an assignment refers to it.
    """

    sha256 = models.CharField(max_length=64, primary_key=True)
    size_bytes = models.BigIntegerField()
    kind = models.CharField(max_length=16, choices=ArtefactKind.choices)
    # Producer: "device:<name>", "aggregate", "export".
    origin = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # When it was found unneeded, and when its bytes were removed.
    marked_at = models.DateTimeField(null=True, blank=True, db_index=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:12]}"

    @staticmethod
    def path_of(sha256: str) -> str:
        """File name in the artefact storage."""
        return f"{sha256[:2]}/{sha256}"


class Job(models.Model):
    """A JobSpec and its lifecycle."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    spec = models.JSONField()
    phase = models.CharField(
        max_length=12, choices=_choices(JobPhase), default=JobPhase.DRAFT.value, db_index=True
    )
    reason = models.TextField(blank=True)
    # Set by resume and retry: the interrupted round starts again.
    resumed = models.BooleanField(default=False)
    model_fingerprint = models.CharField(max_length=64, blank=True)
    # Parameter counts and architecture of the initial model.
    model_info = models.JSONField(default=dict, blank=True)
    global_artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    merged_artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Set in a local-only baseline: the job it is compared with (analysis.baseline_comparison).
    alone_of = models.ForeignKey(
        "self", on_delete=models.CASCADE, null=True, blank=True, related_name="alone_jobs"
    )
    event_seq = models.PositiveIntegerField(default=0)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True
    )
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)
    initialise_requested_at = models.DateTimeField(null=True, blank=True)
    queued_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def job_spec(self) -> JobSpec:
        """The parsed ``spec``; parsed again only where another dict was assigned."""
        parsed: tuple[object, JobSpec] | None = self.__dict__.get("_parsed_spec")
        if parsed is None or parsed[0] is not self.spec:
            parsed = self.__dict__["_parsed_spec"] = (self.spec, load_spec(self.spec))
        return parsed[1]

    @property
    def is_over(self) -> bool:
        return self.phase in (JobPhase.COMPLETED, JobPhase.FAILED, JobPhase.CANCELLED)


class Participant(models.Model):
    """A device of a job. ``slot`` numbers them in name order and identifies the device in seeds.

    Devices that only aggregate have no dataset; their slots follow those of the training devices.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="participants")
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="participations")
    slot = models.PositiveIntegerField()
    dataset = models.CharField(max_length=100)
    examples = models.PositiveIntegerField()
    # Per-device overrides of job options, by dotted path (fedcore.spec.overrides).
    tailoring = models.JSONField(default=dict, blank=True)
    # Slot of the device that aggregates its updates; None: the server (fedcore.topology).
    parent = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["slot"]
        constraints = [
            models.UniqueConstraint(fields=["job", "device"], name="device_once_in_job"),
            models.UniqueConstraint(fields=["job", "slot"], name="slot_once_in_job"),
        ]

    @property
    def trains(self) -> bool:
        return bool(self.dataset)


class Round(models.Model):
    """One training round. Resume and retry start a number again with the next ``attempt``."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(default=1)
    phase = models.CharField(
        max_length=14, choices=_choices(RoundPhase), default=RoundPhase.PLANNED.value
    )
    reason = models.TextField(blank=True)
    # Slots of training and of evaluating devices (fedcore.rounds.types.RoundPolicy).
    members = models.JSONField(default=list)
    evaluators = models.JSONField(default=list)
    policy = models.JSONField(default=dict)
    # [slot, slots of its children] of each aggregating device, the inner ones first.
    clusters = models.JSONField(default=list, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    aggregation_requested_at = models.DateTimeField(null=True, blank=True)
    base_artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    global_artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    state_artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # The difference of global_artefact and base_artefact, where the wire options send steps.
    step_artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Since when a person keeps the model of this round.
    pinned_at = models.DateTimeField(null=True, blank=True)
    fold: models.JSONField[FoldRecord, FoldRecord] = models.JSONField(default=dict, blank=True)
    evaluation: models.JSONField[EvaluationRecord, EvaluationRecord] = models.JSONField(
        default=dict, blank=True
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    collected_at = models.DateTimeField(null=True, blank=True)
    aggregated_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["job_id", "number", "attempt"]
        constraints = [
            models.UniqueConstraint(
                fields=["job", "number", "attempt"], name="round_once_per_attempt"
            )
        ]

    def __str__(self) -> str:
        return f"round {self.number} of {self.job}"


class FoldPlan(models.Model):
    """Division of a round's aggregation among workers; deleted when it is done."""

    round = models.OneToOneField(Round, on_delete=models.CASCADE, related_name="fold_plan")
    # [slot, attempt, factor] of each update in summation order (fedcore.aggregation.sharding).
    members = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"fold of {self.round}"


class FoldShard(models.Model):
    """Elements [start, stop) of the flattened model. It is done once it has an artefact."""

    plan = models.ForeignKey(FoldPlan, on_delete=models.CASCADE, related_name="shards")
    start = models.BigIntegerField()
    stop = models.BigIntegerField()
    claimed_at = models.DateTimeField(null=True, blank=True)
    artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Sum of squares of each update within the shard, in the order of the plan's members.
    squares = models.JSONField(default=list)

    class Meta:
        ordering = ["plan_id", "start"]
        constraints = [models.UniqueConstraint(fields=["plan", "start"], name="shard_once_in_plan")]

    def __str__(self) -> str:
        return f"{self.start} to {self.stop} of the {self.plan}"


class Assignment(models.Model):
    """One device's task in one round. The id fences: a report on an older attempt is refused."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="assignments")
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="assignments")
    slot = models.PositiveIntegerField()
    task = models.CharField(max_length=10, choices=_choices(Task))
    attempt = models.PositiveIntegerField(default=1)
    phase = models.CharField(
        max_length=10, choices=_choices(AssignmentPhase), default=AssignmentPhase.OFFERED.value
    )
    reason = models.TextField(blank=True)
    retryable = models.BooleanField(default=True)
    lease_until = models.DateTimeField()
    offered_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    update_artefact = models.ForeignKey(
        Artefact, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    # Codec chain of its update (fedcore.formats.codec_chain); empty until it is accepted.
    wire = models.CharField(max_length=80, blank=True, default="")
    examples = models.PositiveIntegerField(default=0)
    # As reported: the summary of fedcore.train after training, the Evaluation after evaluating.
    metrics = models.JSONField(default=dict, blank=True)
    # In an asynchronous job: the round that aggregates its update (fedcore.rounds.buffered).
    buffered_in = models.PositiveIntegerField(null=True, blank=True)
    bytes_up = models.BigIntegerField(default=0)
    bytes_down = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["round_id", "slot", "attempt"]
        constraints = [
            models.UniqueConstraint(
                fields=["round", "slot", "task", "attempt"], name="assignment_once_per_attempt"
            )
        ]
        indexes = [models.Index(fields=["device", "phase"])]

    def __str__(self) -> str:
        return f"{self.task} of {self.device} in {self.round}"


class Watch(models.Model):
    """Heartbeat of the coordinator, in one row: the last one, and the first since an outage."""

    ONLY = 1

    looked_at = models.DateTimeField()
    back_at = models.DateTimeField()


class EventLevel(models.TextChoices):
    INFO = "info", "info"
    WARNING = "warning", "warning"
    ERROR = "error", "error"


class Event(models.Model):
    """One line of the log of a job, or of the fleet (no job). ``seq`` has no gaps within a job."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, null=True, related_name="events")
    device = models.ForeignKey(Device, on_delete=models.SET_NULL, null=True, related_name="events")
    seq = models.PositiveIntegerField(default=0)
    level = models.CharField(max_length=8, choices=EventLevel.choices, default=EventLevel.INFO)
    text = models.TextField()
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["job", "seq"], name="event_seq_once", condition=Q(job__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return self.text
