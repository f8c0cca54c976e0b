"""The first global model of a job."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

from django.db import DatabaseError, transaction

from fedcore.errors import EdgewiseError
from fedcore.model.initial import InitialInfo, write_initial
from fedcore.spec.options.method import Exchange
from webapp.common.task_queue import ADVANCE, send_after_commit
from webapp.jobs.artefacts.store import ArtefactRefused, incoming_dir, refuse_full_disk, store
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.models import ArtefactKind, EventLevel, Job
from workers.aggregate import model_tree
from workers.aggregate.result import First
from workers.coordinator.advance import fail_job

log = logging.getLogger(__name__)


def initialise_job(job_id: UUID) -> None:
    """Write the artefact that round 0 measures. A model that cannot be had fails the job."""
    job = Job.objects.get(pk=job_id)
    if job.global_artefact_id is not None or job.is_over:
        return
    try:
        first = _first(job)
    except ArtefactRefused as error:  # the disk is full: reconcile asks again
        job_event(job, f"the initial model could not be stored: {error}", EventLevel.ERROR)
        return
    except EdgewiseError as error:
        fail_job(job_id, str(error))
        return
    except DatabaseError:
        raise
    except Exception as error:  # files of a model break in ways that nobody foresees
        log.exception("the initial model of %s cannot be written", job_id)
        reason = f"{type(error).__name__}: {error}"
        fail_job(job_id, f"the model {job.job_spec.model.name} cannot be used ({reason})")
        return
    info = first.info
    with transaction.atomic():
        Job.objects.filter(pk=job_id, global_artefact=None).update(
            global_artefact=first.artefact,
            model_fingerprint=info.fingerprint,
            model_info={**_figures(info), **first.noted},
            reason="",
        )
        job_event(
            job,
            f"initial model written: {info.trainable_parameters:,} of {info.parameters:,} "
            f"parameters train, {info.size:,} bytes travel",
        )
        send_after_commit(ADVANCE, str(job_id))


def _first(job: Job) -> First:
    with refuse_full_disk(), tempfile.TemporaryDirectory(dir=incoming_dir()) as folder:
        begin = BEGINNINGS[job.job_spec.method.family.exchange]
        return begin(job, Path(folder))


def _write(job: Job, folder: Path) -> First:
    path = folder / "global.safetensors"
    info = write_initial(job.job_spec, path)
    return First(info, store(path, info.sha256, ArtefactKind.GLOBAL, "aggregate"))


BEGINNINGS: Mapping[Exchange, Callable[[Job, Path], First]] = {
    Exchange.UPDATES: _write,
    Exchange.LOGITS: model_tree.begin,
}


def _figures(info: InitialInfo) -> dict[str, object]:
    return {
        "parameters": info.parameters,
        "trainable_parameters": info.trainable_parameters,
        "payload_bytes": info.size,
        "architecture": asdict(info.architecture),
    }
