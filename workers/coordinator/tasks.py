"""What the coordinator is asked to do. A task may run twice, or be lost: reconcile repairs it."""

from __future__ import annotations

from uuid import UUID

from webapp.broker import ADVANCE, COLLECT, RECONCILE, app
from webapp.jobs.transitions import begin_look
from workers.coordinator import collect, reconcile
from workers.coordinator.shell import advance


@app.task(name=ADVANCE)
def advance_job(job_id: str) -> None:
    begin_look(UUID(job_id))
    advance(UUID(job_id))


@app.task(name=RECONCILE)
def reconcile_all() -> None:
    reconcile.run()


@app.task(name=COLLECT)
def collect_all() -> None:
    collect.run()
