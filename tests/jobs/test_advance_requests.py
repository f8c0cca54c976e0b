"""How often a coordinator is asked to advance a job."""

from __future__ import annotations

from typing import Any

from tests.federation import Federation
from webapp.common import task_queue
from webapp.jobs.lifecycle import transitions
from workers.coordinator.tasks import advance_job


def test_many_reports_send_one_advance(federation: Federation, monkeypatch: Any) -> None:
    monkeypatch.setattr(transitions, "REQUEST_TTL_S", 600)  # a slow machine takes longer than 2 s
    pis = federation.devices("pi-a", "pi-b", "pi-c", "pi-d")
    job = federation.started()
    for pi in pis:
        pi.work()
    requests = [
        item for item in federation.outbox.site if item == (task_queue.ADVANCE, (str(job.pk),))
    ]
    assert len(requests) == 1
    federation.work_off()
    assert federation.round(job).phase == "evaluating"


def test_change_after_start_sends_another_advance(federation: Federation, monkeypatch: Any) -> None:
    """A report that arrives while the rows are being read causes another pass."""
    kitchen, porch = federation.devices("pi-kitchen", "pi-porch")
    job = federation.started()
    kitchen.work()
    federation.outbox.site.clear()
    from workers.coordinator import tasks

    look = tasks.advance

    def slow_look(job_id: Any) -> None:
        look(job_id)
        porch.work()

    monkeypatch.setattr(tasks, "advance", slow_look)
    advance_job(str(job.pk))
    monkeypatch.setattr(tasks, "advance", look)
    assert (task_queue.ADVANCE, (str(job.pk),)) in federation.outbox.site
    federation.work_off()
    assert federation.round(job).phase == "evaluating"
