"""The server's Celery application: ``celery -A workers.coordinator.app worker -B -Q coordinator``.

Importing it sets up Django and registers the coordinator's tasks. Aggregation workers use
``workers.aggregate.app``, which adds the tasks that need torch.
"""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
django.setup()

from webapp.common.task_queue import app  # noqa: E402  (needs Django set up)
from workers.coordinator import tasks  # noqa: E402

app.set_current()
celery = app
__all__ = ["app", "celery", "tasks"]
