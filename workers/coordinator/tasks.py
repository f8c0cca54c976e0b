"""The coordinator's Celery tasks. A task may run twice or be lost; reconcile repairs it."""

from __future__ import annotations

from uuid import UUID

from webapp.common.task_queue import ADVANCE, COLLECT, RECONCILE, app
from webapp.jobs.lifecycle.transitions import clear_advance_request
from workers.coordinator import cleanup, reconcile
from workers.coordinator.advance import advance


@app.task(name=ADVANCE)
def advance_job(job_id: str) -> None:
    clear_advance_request(UUID(job_id))
    advance(UUID(job_id))


@app.task(name=RECONCILE)
def reconcile_all() -> None:
    reconcile.run()


@app.task(name=COLLECT)
def collect_all() -> None:
    cleanup.run()
