"""Enrolled devices as the planner sees them: hardware, link and data, from what they reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.db.models import OuterRef, Subquery

from fedcore.errors import SpecError
from fedcore.hardware.links import Link
from fedcore.hardware.profile import hardware_of
from fedcore.plan.cost.candidate import Candidate
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import stored_method
from webapp.common import units
from webapp.devices.models import Dataset, Device
from webapp.jobs.models import Assignment, Job

ASSUMED_LINK = Link(5e6, 5e6, 0.0, name="assumed")
BYTES_PER_TOKEN = 4.0
SOURCE_SHARE = 0.85  # of an example's tokens; the rest is its target


def candidate(spec: JobSpec, device: Device, held: Dataset, last: Assignment | None) -> Candidate:
    """``last``: its newest delivered training, whose link is taken as it was.

    Its MFU too, where both jobs train in the same way: drawing samples is far from the peak.
    """
    source, target = lengths(spec, held)
    return Candidate(
        name=device.name,
        hardware=hardware_of(device.profile),
        examples=held.examples,
        source=source,
        target=target,
        longest=(spec.data.max_source_tokens, spec.data.max_target_tokens),
        link=link_of(last) or ASSUMED_LINK,
        mfu=_mfu(last.metrics) if last and _trains_alike(spec, last) else None,
    )


def lengths(spec: JobSpec, held: Dataset) -> tuple[int, int]:
    """Source and target tokens of a typical example, from the data's bytes where known."""
    s, t = spec.data.max_source_tokens, spec.data.max_target_tokens
    if not held.size_bytes or not held.examples:
        return s, t
    tokens = held.size_bytes / held.examples / BYTES_PER_TOKEN
    source = min(s, max(8, round(SOURCE_SHARE * tokens)))
    return source, min(t, max(4, round((1 - SOURCE_SHARE) * tokens)))


def link_of(last: Assignment | None) -> Link | None:
    """What the device's link carried in its last round; None where it is not known both ways."""
    if last is None:
        return None
    down = _rate(last.metrics, "download_s", last.bytes_down)
    up = _rate(last.metrics, "upload_s", last.bytes_up) or down
    if down is None or up is None:
        return None
    try:
        return Link(up, down, units.number(last.metrics.get("rtt_s")) or 0.0, name="measured")
    except SpecError:  # a round trip that cannot be
        return Link(up, down, 0.0, name="measured")


def _rate(figures: Mapping[str, object], key: str, size: int) -> float | None:
    seconds = units.number(figures.get(key)) or 0.0
    return size / seconds if seconds > 0 and size > 0 else None


def _trains_alike(spec: JobSpec, last: Assignment) -> bool:
    """Whether both learn from references, or both from rewards."""
    return spec.method.family.training is stored_method(last.round.job.spec).training


def _mfu(figures: Mapping[str, object]) -> float | None:
    """The share it reached; None where it cannot be."""
    found = units.number(figures.get("mfu"))
    return found if found is not None and 0 < found <= 1 else None


def last_trainings(devices: Iterable[Device], job: Job | None = None) -> dict[int, Assignment]:
    """Each device's newest delivered training with its job, optionally of one job only."""
    delivered = Assignment.objects.filter(
        device=OuterRef("pk"), phase__in=("reported", "folded"), task="train"
    )
    if job is not None:
        delivered = delivered.filter(round__job=job)
    newest = delivered.order_by("-ended_at").values("pk")[:1]
    rows = Device.objects.filter(pk__in=[device.pk for device in devices])
    keys = rows.order_by().annotate(newest=Subquery(newest)).values_list("newest", flat=True)
    trainings = Assignment.objects.filter(pk__in=[key for key in keys if key])
    return {row.device_id: row for row in trainings.select_related("round__job")}
