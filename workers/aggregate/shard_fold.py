"""Folds one shard of a large fold, on any aggregation worker."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from fedcore.aggregation import sharding
from fedcore.aggregation.flat_inputs import Shard
from fedcore.aggregation.update_files import UpdatesRefused
from fedcore.rounds.types import RoundPhase
from webapp.jobs.artefacts.store import incoming_dir, refuse_full_disk, store
from webapp.jobs.models import ArtefactKind, FoldShard
from workers.aggregate import round_fold, shard_plan


def fold_one(shard_id: int) -> None:
    """Fold a shard and store it; the worker that stores the last one joins them all.

    Running it twice, even at once or on another machine, gives the same bytes. A shard whose plan
    was dropped meanwhile is ignored.
    """
    rows = FoldShard.objects.select_related("plan__round__job", "plan__round__base_artefact")
    shard = rows.filter(pk=shard_id).first()
    if shard is None:
        return
    row = shard.plan.round
    if row.phase != RoundPhase.AGGREGATING.value:
        shard_plan.forget(row)
        return
    with round_fold.failing_round(row):
        if shard_plan.claim(shard):
            _fold_claimed(shard)
        siblings = FoldShard.objects.filter(plan=shard.plan_id)
        if siblings.exists() and not siblings.filter(artefact=None).exists():
            round_fold.fold_round(row.pk)


def _fold_claimed(shard: FoldShard) -> None:
    row = shard.plan.round
    factors = shard_plan.clip_factors(shard.plan)
    with refuse_full_disk(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=incoming_dir())))
        out = folder / "shard.safetensors"
        before, updates = round_fold.open_files(row, stack)
        try:
            if not shard_plan.plan_is_current(
                shard.plan, updates
            ):  # an update was refused: plan again
                raise UpdatesRefused({})
            folded = [update for update in updates if update.key in factors]
            result = sharding.fold_shard(
                round_fold.spec_of(row, updates),
                before,
                folded,
                Shard((shard.start, shard.stop), factors),
                out,
            )
        except UpdatesRefused as error:
            round_fold.refuse_invalid(row, error)
            round_fold.fold_round(row.pk)
            return
        artefact = store(out, result.frame.sha256, ArtefactKind.SHARD, "aggregate")
    squares = [result.squares[key] for key in factors]
    FoldShard.objects.filter(pk=shard.pk).update(artefact=artefact, squares=squares)
