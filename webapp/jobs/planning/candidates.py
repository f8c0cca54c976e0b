"""Planner candidates from enrolled devices: reported hardware, measured link, dataset."""

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
SOURCE_SHARE = 0.85  # of an example's tokens; the rest is the target


def candidate(
    spec: JobSpec, device: Device, dataset: Dataset, last: Assignment | None
) -> Candidate:
    """``last``: the device's newest delivered training, for its link speed and MFU.

    The MFU counts only if both jobs learn from references, or both from rewards.
    """
    source, target = example_tokens(spec, dataset)
    mfu = None
    if last and spec.method.family.training is stored_method(last.round.job.spec).training:
        mfu = units.plausible(last.metrics.get("mfu"), high=1.0) or None
    return Candidate(
        name=device.name,
        hardware=hardware_of(device.profile),
        examples=dataset.examples,
        source=source,
        target=target,
        longest=(spec.data.max_source_tokens, spec.data.max_target_tokens),
        link=link_of(last) or ASSUMED_LINK,
        mfu=mfu,
    )


def example_tokens(spec: JobSpec, dataset: Dataset) -> tuple[int, int]:
    """Source and target tokens of a typical example, from the dataset's bytes if known."""
    s, t = spec.data.max_source_tokens, spec.data.max_target_tokens
    if not dataset.size_bytes or not dataset.examples:
        return s, t
    tokens = dataset.size_bytes / dataset.examples / BYTES_PER_TOKEN
    source = min(s, max(8, round(SOURCE_SHARE * tokens)))
    return source, min(t, max(4, round((1 - SOURCE_SHARE) * tokens)))


def link_of(last: Assignment | None) -> Link | None:
    """Throughput of the device's last round; None unless both directions are known."""
    if last is None:
        return None
    down = _rate(last.metrics, "download_s", last.bytes_down)
    up = _rate(last.metrics, "upload_s", last.bytes_up) or down
    if down is None or up is None:
        return None
    try:
        return Link(up, down, units.number(last.metrics.get("rtt_s")) or 0.0, name="measured")
    except SpecError:  # an implausible round-trip time
        return Link(up, down, 0.0, name="measured")


def _rate(figures: Mapping[str, object], key: str, size: int) -> float | None:
    seconds = units.number(figures.get(key)) or 0.0
    return size / seconds if seconds > 0 and size > 0 else None


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
