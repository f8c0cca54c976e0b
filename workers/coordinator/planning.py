"""Plans a round: its devices and limits, or what the job waits for until it can start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils import timezone

from fedcore.errors import SpecError
from fedcore.rounds import durations, sampling
from fedcore.rounds.round_policy import round_policy, version_policy
from fedcore.rounds.types import DELIVERED, Task
from fedcore.spec.job import JobSpec
from fedcore.spec.options.participation import ParticipationSpec
from fedcore.spec.rules.method import training_devices
from webapp.common.task_queue import AGGREGATE, send_after_commit
from webapp.devices.models import Dataset, Device, DeviceRole
from webapp.jobs.lifecycle import cluster_setup, device_overrides, site_state
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.models import Assignment, EventLevel, Job, Participant, Round
from webapp.jobs.planning import fedpipe_plans
from workers.coordinator import outages

HISTORY_ROUNDS = 50  # how far back to look for a device's last durations


@dataclass(frozen=True)
class RoundPlan:
    """Slots of the devices that train and that evaluate; ``policy`` as stored in Round.policy."""

    members: tuple[int, ...]
    evaluators: tuple[int, ...]
    policy: dict[str, float]
    clusters: tuple[tuple[int, list[int]], ...] = ()


@dataclass(frozen=True)
class Wait:
    """Why the round cannot start yet; ``too_late``: the job gives up."""

    reason: str
    too_late: bool


def plan_round(job: Job, number: int) -> RoundPlan | Wait:
    """Choose the devices of a round among those that are connected and able."""
    if full := site_state.disk_text():
        return Wait(f"waiting: {full}", False)
    spec = job.job_spec
    try:
        everybody = _participants(job, spec)
    except SpecError as error:
        return Wait(str(error), True)
    participants = [p for p in everybody if p.trains]
    able = [p for p in participants if p.device.can_work]
    if spec.participation.buffered and number > 1:  # the devices are already working
        return _plan_version(spec, number, participants, able)
    need = min(spec.participation.minimum, len(participants)) or 1
    if len(participants) < spec.participation.minimum or len(able) < need:
        return _waiting_for_devices(job, spec, participants)
    if spec.participation.buffered and number:
        return _plan_version(spec, number, participants, able)
    try:
        fedpipe_plans.assign_plans(job, number, participants)
    except SpecError as error:
        return Wait(str(error), True)
    slots = {str(p.slot): p.slot for p in able}
    predicted = predicted_seconds(job, spec.participation, number)
    chosen = sampling.select(list(slots), spec.participation, spec.seed, number, predicted)
    heads_only = spec.method.family.keeps_weights_on_device
    policy = round_policy(spec.participation, chosen, predicted, heads_only=heads_only)
    return RoundPlan(
        tuple(slots[name] for name in chosen.members) if number else (),
        tuple(slots.values()) if spec.evaluation.due(number, spec.rounds) else (),
        asdict(policy),
        tuple(cluster_setup.clusters_of(everybody)) if number else (),
    )


def _plan_version(
    spec: JobSpec, number: int, participants: list[Participant], able: list[Participant]
) -> RoundPlan:
    """A round of an asynchronous job: every device may train whenever it is free."""
    evaluating = spec.evaluation.due(number, spec.rounds)
    return RoundPlan(
        tuple(p.slot for p in participants),
        tuple(p.slot for p in able) if evaluating else (),
        asdict(version_policy(spec, number, len(participants))),
    )


def predicted_seconds(job: Job, part: ParticipationSpec, number: int) -> dict[str, float]:
    """The devices' expected seconds by slot, where the job uses them."""
    if part.deadline_quantile <= 0 and part.tiers < 2:
        return {}
    reported = Assignment.objects.filter(
        round__job=job,
        round__number__gte=number - HISTORY_ROUNDS,
        task=Task.TRAIN.value,
        phase__in=[phase.value for phase in DELIVERED],
    ).order_by("-round__number", "-round__attempt", "-attempt")
    history = (
        (str(slot), durations.round_seconds(metrics))
        for slot, metrics in reported.values_list("slot", "metrics")
    )
    return durations.predict((slot, seconds) for slot, seconds in history if seconds is not None)


def _waiting_for_devices(job: Job, spec: JobSpec, participants: list[Participant]) -> Wait:
    since = job.queued_at or job.created_at
    if job.started_at is not None:
        ended = job.rounds.exclude(ended_at=None).order_by("-ended_at").first()
        since = max(since, ended.ended_at) if ended and ended.ended_at else since
    since = max(since, outages.back_at())  # the server's own outage does not count
    late = timezone.now() > since + timedelta(seconds=spec.participation.deadline_s)
    need = spec.participation.minimum
    if len(participants) < need:
        of = f" of {spec.data.dataset!r}" if spec.data.dataset else ""
        number = "1 device" if need == 1 else f"{need} devices"
        number += f" with at least {spec.data.min_examples} examples{of}"
        reason = f"waiting for {number}; {len(participants)} enrolled"
    else:
        # Name every device that cannot work, with its reason.
        devices = [p.device for p in participants]
        abilities = [(device.name, device.ability) for device in devices]
        unable = [f"{name}: {one.text}" for name, one in abilities if one and one.blocks]
        silent = [d.name for d in devices if not d.is_online and d.ability is None]
        offline = [f"offline: {', '.join(silent)}"] if silent else []
        wanted = "that can work" if unable else "to be online"
        text = f"waiting for {need} of {len(devices)} devices {wanted}"
        reason = "; ".join([text, *offline, *unable])
    if late:
        reason += f"; gave up after {spec.participation.deadline_s:.0f} s"
    return Wait(reason, late)


def _participants(job: Job, spec: JobSpec) -> list[Participant]:
    """The job's devices; fixed once enough of them can work for the first time."""
    rows = list(job.participants.select_related("device"))
    if rows:
        return [row for row in rows if row.device.revoked_at is None]
    # Datasets that the job may use, on devices that may train.
    datasets = Dataset.objects.filter(
        device__revoked_at=None,
        device__role__in=[DeviceRole.TRAINER, DeviceRole.BOTH],
        examples__gte=spec.data.min_examples,
    ).select_related("device")
    if names := training_devices(spec):
        datasets = datasets.filter(device__name__in=names)
    if spec.data.dataset:
        datasets = datasets.filter(name=spec.data.dataset)
    first: dict[int, Dataset] = {}
    for dataset in datasets.order_by("device__name", "id"):
        first.setdefault(dataset.device_id, dataset)
    rows = [
        Participant(
            job=job, device=item.device, slot=slot, dataset=item.name, examples=item.examples
        )
        for slot, item in enumerate(first.values())
    ]
    ready = [row for row in rows if row.device.can_work]
    if len(ready) >= max(1, spec.participation.minimum):
        device_overrides.assign_overrides(spec, rows)
        rows = cluster_setup.assign_clusters(spec, rows)
        for text in device_overrides.unknown_devices(spec, rows):
            job_event(job, text, EventLevel.WARNING)
        Participant.objects.bulk_create(rows)
    return rows


def request_aggregation(row: Round, now: datetime, resend_after_s: float) -> None:
    """Ask a worker to fold the round, again if the last request seems lost."""
    requested_at = row.aggregation_requested_at
    if requested_at is None or now - requested_at > timedelta(seconds=resend_after_s):
        Round.objects.filter(pk=row.pk).update(aggregation_requested_at=now)
        row.aggregation_requested_at = now
        send_after_commit(AGGREGATE, row.pk)


def devices_of(job: Job) -> QuerySet[Device]:
    return Device.objects.filter(participations__job=job)
