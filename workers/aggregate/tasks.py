"""Celery tasks that need torch: initial model, aggregation, export."""

from __future__ import annotations

import logging
from uuid import UUID

from webapp.common.task_queue import AGGREGATE, EXPORT, FOLD_SHARD, INITIALISE, app

log = logging.getLogger(__name__)


@app.task(name=INITIALISE)
def initialise(job_id: str) -> None:
    from workers.aggregate.initial_model import initialise_job

    initialise_job(UUID(job_id))


@app.task(name=AGGREGATE)
def aggregate(round_id: int) -> None:
    from workers.aggregate.round_fold import fold_round

    fold_round(round_id)


@app.task(name=FOLD_SHARD)
def fold_shard(shard_id: int) -> None:
    from workers.aggregate.shard_fold import fold_one

    fold_one(shard_id)


@app.task(name=EXPORT)
def export(job_id: str) -> None:
    from workers.aggregate.merged_model import export_merged_model

    export_merged_model(UUID(job_id))
