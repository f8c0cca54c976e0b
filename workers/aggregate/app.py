"""The aggregation worker: ``celery -A workers.aggregate.app worker -Q aggregate -c 1``.

torch is imported inside the tasks only: a prefork child that inherits a loaded torch hangs.
"""

from __future__ import annotations

from workers.coordinator.app import app  # isort: skip  (sets Django up, which the tasks need)
from workers.aggregate import tasks

celery = app
__all__ = ["app", "celery", "tasks"]
