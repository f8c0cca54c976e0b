"""FedPipe's plan of a launched job: made once, before its first round, from the devices' scores."""

from __future__ import annotations

from collections.abc import Sequence

from fedcore.architecture.sizes import Architecture
from fedcore.errors import Fault
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.fedpipe.explain import needs
from fedcore.plan.fedpipe.fleet import plans, read_scores
from fedcore.plan.fedpipe.types import Allocation
from fedcore.plan.planner import FleetPlan
from fedcore.rounds.types import DELIVERED, Task
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import stored_method
from webapp.devices.models import Dataset
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.models import Assignment, Event, Job, Participant
from webapp.jobs.planning.candidates import candidate, last_trainings

BUDGETS = ("memory_budget_mb", "time_budget_s")
SHOWN = 3  # devices named for each reason
PLANNED = ": planned: "  # between the device and the reason in a job's log


def plan_texts(job: Job) -> list[tuple[str, str]]:
    """Device and plan, in words, of a job that was planned; by name."""
    if not stored_method(job.spec).plans_each_device:
        return []
    texts = Event.objects.filter(job=job, text__contains=PLANNED).order_by("seq")
    pairs = (text.partition(PLANNED) for text in texts.values_list("text", flat=True))
    return sorted((name, words) for name, _, words in pairs)


def budget_faults(spec: JobSpec, found: FleetPlan | None) -> list[Fault]:
    """A budget that no device can be planned with, at its option, with the least that would do."""
    method = spec.method
    planned = method.family.plans_each_device
    given = [name for name in BUDGETS if planned and getattr(method, name)]
    if not given or found is None or not found.devices or found.fitting:
        return []
    names: dict[str, list[str]] = {}
    for row in found.devices:
        names.setdefault(row.why, []).append(row.name)
    told = "; ".join(f"{', '.join(who[:SHOWN])}: {why}" for why, who in names.items())
    return [Fault(f"method.{name}", f"no device can be planned: {told}") for name in given]


def assign_plans(job: Job, number: int, participants: Sequence[Participant]) -> None:
    """Set and store what each device trains, where the job leaves that to FedPipe and nobody has.

    To be called under the job's lock before round ``number`` starts. Before round 0, which brings
    the scores, it only makes sure that every device can be planned: that does not depend on them.
    Raises SpecError with every device that no plan fits.
    """
    spec = job.job_spec
    if not spec.method.family.plans_each_device or any(row.tailoring for row in participants):
        return
    found = planned(job, spec, participants)
    if number == 0:
        return
    for row in participants:
        choice = found[row.device.name]
        row.tailoring = choice.tailoring(spec)
        text = f"{row.device.name}{PLANNED}{choice.why}; {needs(choice)}"
        job_event(job, text, device=row.device)
    Participant.objects.bulk_update(participants, ["tailoring"])


def planned(job: Job, spec: JobSpec, participants: Sequence[Participant]) -> dict[str, Allocation]:
    """The plan of each device by its name; where none has sent scores all matrices count alike."""
    sizes = Architecture(**job.model_info["architecture"])
    devices = {row.slot: item for row, item in _candidates(spec, participants)}
    names = {slot: item.name for slot, item in devices.items()}
    scores = {
        names[slot]: own
        for slot, metrics in _reports(job)
        if slot in names and (own := read_scores(metrics, sizes))
    }
    return plans(spec, sizes, list(devices.values()), scores)


def _candidates(
    spec: JobSpec, participants: Sequence[Participant]
) -> list[tuple[Participant, Candidate]]:
    """The devices as the planner sees them, with the data that the job took."""
    last = last_trainings([row.device for row in participants])
    rows = Dataset.objects.filter(device__in=[row.device_id for row in participants])
    held = {(item.device_id, item.name): item for item in rows}
    return [
        (
            row,
            candidate(
                spec,
                row.device,
                held.get((row.device_id, row.dataset))
                or Dataset(device=row.device, name=row.dataset, examples=row.examples),
                last.get(row.device_id),
            ),
        )
        for row in participants
    ]


def _reports(job: Job) -> list[tuple[int, dict[str, object]]]:
    """Slot and metrics of the evaluations before training, the newest of a device last."""
    rows = Assignment.objects.filter(
        round__job=job,
        round__number=0,
        task=Task.EVALUATE.value,
        phase__in=[phase.value for phase in DELIVERED],
    )
    ordered = rows.order_by("round__attempt", "attempt")
    return list(ordered.values_list("slot", "metrics"))
