"""The aggregation worker: ``celery -A workers.aggregate.app worker -Q aggregate -c 1``.

torch is imported inside the tasks only: a prefork child that inherits a loaded torch hangs.
"""

from __future__ import annotations

from workers.aggregate import tasks
from workers.coordinator.app import app

celery = app
__all__ = ["app", "celery", "tasks"]
