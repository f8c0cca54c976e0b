"""Downloads of the tuned model: the adapter as a zip made while it is sent, or the merged model."""

from __future__ import annotations

from functools import partial
from typing import TypedDict

from django.http import HttpRequest, HttpResponseBase
from django.utils.text import slugify

from fedcore.errors import EdgewiseError
from fedcore.export.contract import BASE_CHANGED, AdapterFolder
from fedcore.export.table import EXPORTS
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import exported_spec
from webapp.common.task_queue import EXPORT, send_after_commit
from webapp.jobs.artefacts.store import removed_text, storage
from webapp.jobs.artefacts.streaming import stream
from webapp.jobs.artefacts.zip_stream import ZipMember, artefact_chunks, send_zip, text_member
from webapp.jobs.models import Artefact, ArtefactKind, Job, Round

ONLY_LOGITS = (
    "this job has only logits yet: each device keeps its own model, and the parent sends its model "
    "in the last round"
)
PACKAGED_BASES = {
    "nano": "the nano folder of the Edgewise repository",
    "micro": "the folder that `python -m fedcore.model.micro --out DIR` writes",
}


class NoModel(EdgewiseError):
    """There is nothing to download yet; the text says when there will be."""

    status = 409


class ModelRemoved(NoModel):
    """The model was removed; the text says when and why."""

    status = 410


class BeingMade(EdgewiseError):
    """The merged model is being made; try again after ``retry_after_s``."""

    retry_after_s = 10


class DownloadModel(TypedDict):
    sha256: str
    size_bytes: int


# The key ``global`` is a Python keyword.
Downloads = TypedDict(
    "Downloads",
    {
        "global": DownloadModel | None,
        "adapter_url": str | None,
        "note": str,
        "merged_url": str | None,
    },
)


def available_downloads(job: Job) -> Downloads:
    """The downloads of a job now, as pages and the REST API show them."""
    model = job.global_artefact
    if model is None or model.kind != ArtefactKind.GLOBAL:
        return {"global": None, "adapter_url": None, "note": "", "merged_url": None}
    spec, base = exported_spec(job.job_spec), f"/api/v1/jobs/{job.pk}/download"
    export, folds = EXPORTS[spec.adapter.family.kind], spec.adapter.averaging.merges_into_base
    return {
        "global": {"sha256": model.sha256, "size_bytes": model.size_bytes},
        "adapter_url": f"{base}/adapter/" if export.folder and not folds else None,
        "note": BASE_CHANGED if folds else "",
        "merged_url": None if export.not_merged else f"{base}/merged/",
    }


def adapter(request: HttpRequest, job: Job, round_number: int | None = None) -> HttpResponseBase:
    """A zip of the adapter's folder: of the newest model, or of one round's.

    A job that trains base weights, or merges part of its updates into the base, gives the whole
    model. Raises NoModel, and BeingMade as ``merged`` does.
    """
    spec = exported_spec(job.job_spec)
    if spec.adapter.averaging.merges_into_base:
        if round_number is not None:
            raise NoModel(BASE_CHANGED)
        return merged(request, job)
    folder = EXPORTS[spec.adapter.family.kind].folder
    if folder is None:
        if round_number is not None:
            raise NoModel(
                "this job trained the model's own weights; download a round's as an artefact"
            )
        return merged(request, job)
    artefact = model_after(job, round_number)
    suffix = "adapter" if round_number is None else f"adapter-round-{round_number}"
    members = adapter_folder(spec, folder, artefact)
    return send_zip(request, members, f"{file_stem(job)}-{suffix}.zip")


def merged(request: HttpRequest, job: Job) -> HttpResponseBase:
    """The whole tuned model. Raises BeingMade, and queues the export, where it is not made yet."""
    model_after(job, None)
    if why := EXPORTS[exported_spec(job.job_spec).adapter.family.kind].not_merged:
        raise NoModel(why)
    if job.merged_artefact is None:
        request_merged(job)
        raise BeingMade("the model is being merged; try again in a few seconds")
    return stream(request, job.merged_artefact, f"{file_stem(job)}-model.zip")


def request_merged(job: Job) -> None:
    """Queue the export of the merged model; ``Job.merged_artefact`` is set when it is done."""
    send_after_commit(EXPORT, str(job.pk))


def model_after(job: Job, round_number: int | None) -> Artefact:
    """The newest global model, or that of one round. Raises NoModel."""
    if round_number is None:
        artefact = job.global_artefact
        missing = "this job has no model yet; it gets one when its first round begins"
    else:
        rounds = Round.objects.filter(job=job, number=round_number, global_artefact__isnull=False)
        last = rounds.select_related("global_artefact").order_by("-attempt").first()
        artefact = last.global_artefact if last else None
        missing = f"round {round_number} of this job has not produced a model"
    if artefact is None:
        raise NoModel(missing)
    if artefact.kind == ArtefactKind.LOGITS:
        raise NoModel(ONLY_LOGITS)
    if artefact.removed_at is not None:
        raise ModelRemoved(removed_text(artefact))
    if not storage().exists(Artefact.path_of(artefact.sha256)):
        raise NoModel(f"the storage has lost {artefact.sha256}; restore it from a backup")
    return artefact


def adapter_folder(spec: JobSpec, folder: AdapterFolder, artefact: Artefact) -> list[ZipMember]:
    """The files that the adapter's loader wants, and one for people."""
    readme = folder.readme.format(
        name=spec.name,
        model=spec.model.name,
        base=PACKAGED_BASES.get(spec.model.name, spec.model.name),
        width=spec.adapter.width,
        prefix=spec.data.prefix,
        when=f"{artefact.created_at:%Y-%m-%d}",
        sha256=artefact.sha256,
    )
    config = text_member(folder.config_file, folder.config_text(spec))
    weights = ZipMember(
        folder.weights_file, artefact.size_bytes, partial(artefact_chunks, artefact)
    )
    return [config, text_member("README.md", readme), weights]


def file_stem(job: Job) -> str:
    """The job's name as part of a file name."""
    return slugify(job.name)[:60] or "job"
