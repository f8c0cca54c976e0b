"""The aggregation worker: ``celery -A workers.aggregate.app worker -Q aggregate -c 1``.

torch is imported inside the tasks only, because a prefork child that inherits it hangs.
"""

from __future__ import annotations

from workers.coordinator.app import app  # isort: skip  (sets up Django, which the tasks need)
from typing import Any

from celery import bootsteps
from celery.signals import worker_ready
from django.db import connections

from webapp.jobs.lifecycle.site_state import WORKER_BEAT_S, report_worker
from workers.aggregate import tasks
from workers.coordinator import outages

celery = app


class WorkerBeat(bootsteps.StartStopStep):  # type: ignore[misc]
    """Reports from the worker's main process that it runs, also while its child aggregates."""

    requires = ("celery.worker.components:Timer",)

    def start(self, parent: Any) -> None:
        report_worker()
        parent.timer.call_repeatedly(WORKER_BEAT_S, report_worker)


app.steps["worker"].add(WorkerBeat)


@worker_ready.connect(weak=False)
def repeat_requests(**_: object) -> None:
    """A worker that starts has the work of one that died requested again."""
    outages.repeat_requests()
    connections.close_all()  # no connection lives through a fork


__all__ = ["app", "celery", "tasks"]
