"""Celery's prefork pool, which replaces a killed training process at once."""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool

EXIT_S = 1.0


class PromptAsynPool(AsynPool):  # type: ignore[misc]
    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """The pipe of a process closes before its exit code is there; 5 s pass until a look."""
        proc.join(EXIT_S)
        super()._event_process_exit(hub, proc)


class TrainingPool(TaskPool):  # type: ignore[misc]
    Pool = PromptAsynPool
