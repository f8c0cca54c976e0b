"""FedPipe plans of a launched job, made once before round 1 from the devices' scores."""

from __future__ import annotations

from collections.abc import Sequence

from fedcore.architecture.sizes import Architecture
from fedcore.errors import Fault
from fedcore.plan.cost.allocation import Allocation
from fedcore.plan.fedpipe.allocate import allocate_fleet
from fedcore.plan.fedpipe.explain import needs
from fedcore.plan.fedpipe.scores import read_scores
from fedcore.plan.planner import FleetPlan
from fedcore.rounds.types import DELIVERED, Task
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import stored_method
from webapp.devices.models import Dataset
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.models import Assignment, Event, Job, Participant
from webapp.jobs.planning.candidates import candidate, last_trainings

BUDGETS = ("memory_budget_mb", "time_budget_s")
NAMES_PER_REASON = 3
PLANNED = ": planned: "  # separates device and plan in an event text


def plan_texts(job: Job) -> list[tuple[str, str]]:
    """Device and plan, in words, of a planned job; by name."""
    if not stored_method(job.spec).plans_each_device:
        return []
    texts = Event.objects.filter(job=job, text__contains=PLANNED).order_by("seq")
    pairs = (text.partition(PLANNED) for text in texts.values_list("text", flat=True))
    return sorted((name, words) for name, _, words in pairs)


def budget_faults(spec: JobSpec, plan: FleetPlan | None) -> list[Fault]:
    """A fault at each budget option if no device fits it, with the least budget that would."""
    method = spec.method
    planned_by_method = method.family.plans_each_device
    budgets = [name for name in BUDGETS if planned_by_method and getattr(method, name)]
    if not budgets or plan is None or not plan.devices or plan.fitting:
        return []
    names: dict[str, list[str]] = {}
    for row in plan.devices:
        names.setdefault(row.why, []).append(row.name)
    reasons = "; ".join(f"{', '.join(who[:NAMES_PER_REASON])}: {why}" for why, who in names.items())
    return [Fault(f"method.{name}", f"no device can be planned: {reasons}") for name in budgets]


def assign_plans(job: Job, number: int, participants: Sequence[Participant]) -> None:
    """Set and store each device's plan, unless the job has plans or does not use FedPipe.

    Call it under the job's lock before round ``number`` starts. Before round 0, which measures the
    scores, it only checks that every device can be planned: that does not depend on the scores.
    Raises SpecError naming every device that no plan fits.
    """
    spec = job.job_spec
    if not spec.method.family.plans_each_device or any(row.tailoring for row in participants):
        return
    allocations = planned(job, spec, participants)
    if number == 0:
        return
    for row in participants:
        allocation = allocations[row.device.name]
        row.tailoring = allocation.overrides(spec)
        text = f"{row.device.name}{PLANNED}{allocation.why}; {needs(allocation)}"
        job_event(job, text, device=row.device)
    Participant.objects.bulk_update(participants, ["tailoring"])


def planned(job: Job, spec: JobSpec, participants: Sequence[Participant]) -> dict[str, Allocation]:
    """The plan of each device by name; without scores, all matrices count equally."""
    sizes = Architecture(**job.model_info["architecture"])
    names = {row.slot: row.device.name for row in participants}
    last = last_trainings([row.device for row in participants])
    rows = Dataset.objects.filter(device__in=[row.device_id for row in participants])
    datasets = {(item.device_id, item.name): item for item in rows}
    candidates = []
    for row in participants:
        dataset = datasets.get((row.device_id, row.dataset)) or Dataset(
            device=row.device, name=row.dataset, examples=row.examples
        )
        candidates.append(candidate(spec, row.device, dataset, last.get(row.device_id)))
    evaluations = Assignment.objects.filter(
        round__job=job,
        round__number=0,
        task=Task.EVALUATE.value,
        phase__in=[phase.value for phase in DELIVERED],
    ).order_by("round__attempt", "attempt")
    scores = {
        names[slot]: matrix_scores
        for slot, metrics in evaluations.values_list("slot", "metrics")
        if slot in names and (matrix_scores := read_scores(metrics, sizes))
    }
    return allocate_fleet(spec, sizes, candidates, scores)
