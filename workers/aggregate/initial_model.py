"""Creates the initial model of a job."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

from django.db import DatabaseError, transaction

from fedcore.errors import EdgewiseError
from fedcore.model.initial import write_initial
from fedcore.spec.options.method import Exchange
from webapp.common.task_queue import ADVANCE, send_after_commit
from webapp.common.units import si, size
from webapp.jobs.artefacts.store import ArtefactRefused, incoming_dir, refuse_full_disk, store
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.models import ArtefactKind, EventLevel, Job
from workers.aggregate import model_tree
from workers.aggregate.result import InitialArtefact
from workers.coordinator.advance import fail_job

log = logging.getLogger(__name__)


def initialise_job(job_id: UUID) -> None:
    """Write the artefact that round 0 evaluates. A model that cannot be loaded fails the job."""
    job = Job.objects.get(pk=job_id)
    if job.global_artefact_id is not None or job.is_over:
        return
    try:
        with refuse_full_disk(), tempfile.TemporaryDirectory(dir=incoming_dir()) as folder:
            create = INITIALISERS[job.job_spec.method.family.exchange]
            initial = create(job, Path(folder))
    except ArtefactRefused as error:  # the disk is full; reconcile repeats the request
        job_event(job, f"cannot store the initial model: {error}", EventLevel.ERROR)
        return
    except EdgewiseError as error:
        fail_job(job_id, str(error))
        return
    except DatabaseError:
        raise
    except Exception as error:  # model files fail in unforeseen ways
        log.exception("cannot write the initial model of %s", job_id)
        reason = f"{type(error).__name__}: {error}"
        fail_job(job_id, f"cannot use the model {job.job_spec.model.name} ({reason})")
        return
    info = initial.info
    figures = {
        "parameters": info.parameters,
        "trainable_parameters": info.trainable_parameters,
        "payload_bytes": info.size,
        "architecture": asdict(info.architecture),
    }
    with transaction.atomic():
        Job.objects.filter(pk=job_id, global_artefact=None).update(
            global_artefact=initial.artefact,
            model_fingerprint=info.fingerprint,
            model_info={**figures, **initial.extra_info},
            reason="",
        )
        job_event(
            job,
            f"initial model ready: training {si(info.trainable_parameters)} of "
            f"{si(info.parameters)} parameters, {size(info.size)} per transfer",
        )
        send_after_commit(ADVANCE, str(job_id))


def _create_global_model(job: Job, folder: Path) -> InitialArtefact:
    path = folder / "global.safetensors"
    info = write_initial(job.job_spec, path)
    return InitialArtefact(info, store(path, info.sha256, ArtefactKind.GLOBAL, "aggregate"))


INITIALISERS: Mapping[Exchange, Callable[[Job, Path], InitialArtefact]] = {
    Exchange.UPDATES: _create_global_model,
    Exchange.LOGITS: model_tree.create_bridge,
}
