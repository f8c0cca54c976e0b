"""Plans large folds in shards: which there are, which worker folds them, and how they are joined.

The rows are authoritative. A worker that is asked to fold such a round requests the shards that
no worker has folded or is folding. Once all are stored, it joins them instead of folding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from math import ceil

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from fedcore.aggregation import sharding
from fedcore.aggregation.flat_file import Span
from fedcore.aggregation.fold_task import FoldReport, NextFiles, ServerFiles
from fedcore.aggregation.next_model import FoldFunction, fold_files
from fedcore.aggregation.update_files import Key, UpdateFile
from fedcore.formats.frame_header import read_header
from fedcore.spec.job import JobSpec
from webapp.common.task_queue import FOLD_SHARD, send_after_commit
from webapp.jobs.artefacts.store import incoming_dir, local_file, storage
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.lifecycle.transitions import lock_job
from webapp.jobs.models import Artefact, FoldPlan, FoldShard, Round

# A shard that was claimed this long ago and is not stored counts as lost with its worker. Too short
# a time costs duplicate work, nothing else.
CLAIM_S = 60.0


def fold_of(
    row: Round, before: ServerFiles, updates: Sequence[UpdateFile], stack: ExitStack
) -> FoldFunction | None:
    """How to fold a round now: directly, or by joining shards. None while shards are missing."""
    if not sharding.shardable(row.job.job_spec):
        return fold_files
    size = sum(update.path.stat().st_size for update in updates)
    ranges = sharding.spans(read_header(before.model).elements, shard_count(size))
    if len(ranges) < 2:
        return fold_files
    plan = _current_plan(row, before, updates, ranges)
    keys = clip_factors(plan)
    stored: list[sharding.ShardFile] = []
    complete = True
    for shard in plan.shards.select_related("artefact"):
        if shard.artefact is None:
            complete = False
        elif storage().exists(Artefact.path_of(shard.artefact.sha256)):
            path = stack.enter_context(local_file(shard.artefact))
            squares = dict(zip(keys, shard.squares, strict=True))
            stored.append(sharding.ShardFile(path, (shard.start, shard.stop), squares))
        else:  # the shard's bytes are missing: it is folded again
            FoldShard.objects.filter(pk=shard.pk).update(artefact=None, claimed_at=None)
            complete = False
    if not complete:
        missing = plan.shards.filter(artefact=None)
        for shard in missing.filter(unclaimed()):
            send_after_commit(FOLD_SHARD, shard.pk)
        return None
    shards = sharding.FoldedShards(stored, keys)

    def join(
        spec: JobSpec, before: ServerFiles, updates: Sequence[UpdateFile], after: NextFiles
    ) -> FoldReport:
        return sharding.join_shards(spec, before, updates, shards, after)

    return join


def shard_count(size_bytes: int) -> int:
    """The number of shards for a fold of so many bytes; 1 where sharding would not help."""
    if settings.AGGREGATE_WORKERS < 2 or not settings.FOLD_SHARD_BYTES:
        return 1
    shard_bytes: int = settings.FOLD_SHARD_BYTES
    return ceil(size_bytes / shard_bytes)


def clip_factors(plan: FoldPlan) -> dict[Key, float]:
    return {(slot, attempt): factor for slot, attempt, factor in plan.members}


def _current_plan(
    row: Round, before: ServerFiles, updates: Sequence[UpdateFile], ranges: Sequence[Span]
) -> FoldPlan:
    """The round's plan; created again if one of its updates has been refused since."""
    plan = FoldPlan.objects.filter(round=row).first()
    if plan is not None and plan_is_current(plan, updates):
        return plan
    factors = sharding.shard_factors(row.job.job_spec, before, updates, incoming_dir())
    members = [[*key, factor] for key, factor in sorted(factors.items())]
    with transaction.atomic():
        lock_job(row.job_id)
        plan = FoldPlan.objects.filter(round=row).first()
        if plan is not None and plan_is_current(plan, updates):
            return plan  # another worker was faster
        forget(row)
        plan = FoldPlan.objects.create(round=row, members=members)
        FoldShard.objects.bulk_create(FoldShard(plan=plan, start=a, stop=b) for a, b in ranges)
        job_event(row.job, f"round {row.number}: folding in {len(ranges)} shards")
    return plan


def plan_is_current(plan: FoldPlan, updates: Sequence[UpdateFile]) -> bool:
    """Whether all updates of a plan are still to be folded."""
    return set(clip_factors(plan)) <= {update.key for update in updates}


def unclaimed() -> Q:
    """Shards that no worker has claimed, or whose worker seems lost."""
    return Q(claimed_at=None) | Q(claimed_at__lt=timezone.now() - timedelta(seconds=CLAIM_S))


def claim(shard: FoldShard) -> bool:
    """Whether this worker is the one to fold it."""
    waiting = FoldShard.objects.filter(unclaimed(), pk=shard.pk, artefact=None)
    return bool(waiting.update(claimed_at=timezone.now()))


def forget(row: Round) -> None:
    """Delete the round's plan and its shards' bytes, which only this fold needs."""
    plan = FoldPlan.objects.filter(round=row).first()
    if plan is None:
        return
    names = list(plan.shards.exclude(artefact=None).values_list("artefact_id", flat=True))
    now = timezone.now()
    with transaction.atomic():
        plan.delete()
        Artefact.objects.filter(pk__in=names).update(marked_at=now, removed_at=now)
        for name in names:
            storage().delete(Artefact.path_of(str(name)))
