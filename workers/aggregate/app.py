"""The aggregation worker: ``celery -A workers.aggregate.app worker -Q aggregate -c 1``.

torch is imported inside the tasks only: a prefork child that inherits a loaded torch hangs.
"""

from __future__ import annotations

from workers.coordinator.app import app  # isort: skip  (sets Django up, which the tasks need)
from celery.signals import worker_ready
from django.db import connections

from workers.aggregate import tasks
from workers.coordinator import outages

celery = app


@worker_ready.connect(weak=False)
def ask_again(**_: object) -> None:
    """What a worker was at when it died is asked for again as soon as one starts."""
    outages.ask_again()
    connections.close_all()  # no connection lives through a fork


__all__ = ["app", "celery", "tasks"]
