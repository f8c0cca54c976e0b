"""The aggregation worker: ``celery -A workers.aggregate.app worker -Q aggregate -c 1``.

torch is imported inside the tasks only, because a prefork child that inherits it hangs.
"""

from __future__ import annotations

from workers.coordinator.app import app  # isort: skip  (sets up Django, which the tasks need)
from celery.signals import worker_ready
from django.db import connections

from workers.aggregate import tasks
from workers.coordinator import outages

celery = app


@worker_ready.connect(weak=False)
def repeat_requests(**_: object) -> None:
    """A worker that starts has the work of one that died requested again."""
    outages.repeat_requests()
    connections.close_all()  # no connection lives through a fork


__all__ = ["app", "celery", "tasks"]
