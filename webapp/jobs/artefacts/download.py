"""The tuned model as a file to take home, made while it is sent."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils.text import slugify

from fedcore.errors import EdgewiseError
from fedcore.export.contract import BASE_CHANGED, AdapterFolder
from fedcore.export.table import EXPORTS
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import taken_home
from webapp.common.task_queue import EXPORT, send_after_commit
from webapp.jobs.artefacts.store import CHUNK, removed_text, storage
from webapp.jobs.artefacts.streaming import stream
from webapp.jobs.models import Artefact, ArtefactKind, Job, Round

ONLY_SAID = (
    "no model is here yet, only what one says: each device of this job keeps its own, and the "
    "parent sends its model in the last round"
)
PACKAGED_BASES = {
    "nano": "the nano folder of the Edgewise repository",
    "micro": "the folder that `python -m fedcore.model.micro --out DIR` writes",
}


class NoModel(EdgewiseError):
    """There is nothing to download; the text says when there will be."""

    status = 409


class Removed(NoModel):
    """There was one; the text says when it was removed and why."""

    status = 410


class BeingMade(EdgewiseError):
    """The merged model is asked for; it is there after about ``retry_after_s``."""

    retry_after_s = 10


@dataclass(frozen=True)
class ZipMember:
    """One file of a zip. ``parts`` opens its bytes, of which there are ``size_bytes``."""

    name: str
    size_bytes: int
    parts: Callable[[], Iterable[bytes]]


def offered(job: Job) -> dict[str, Any]:
    """What can be taken home now, as a page shows it."""
    best = job.global_artefact
    if best is None or best.kind != ArtefactKind.GLOBAL:
        return {"global": None, "adapter_url": None, "note": "", "merged_url": None}
    spec, base = taken_home(job.job_spec), f"/api/v1/jobs/{job.pk}/download"
    export, folds = EXPORTS[spec.adapter.family.kind], spec.adapter.averaging.merges_into_base
    return {
        "global": {"sha256": best.sha256, "size_bytes": best.size_bytes},
        "adapter_url": f"{base}/adapter/" if export.folder and not folds else None,
        "note": BASE_CHANGED if folds else "",
        "merged_url": None if export.not_merged else f"{base}/merged/",
    }


def adapter(request: HttpRequest, job: Job, round_number: int | None = None) -> HttpResponseBase:
    """A zip of the adapter's folder: the newest model, or that of one round.

    A job that trained every weight has no adapter and gives the whole model, and so does one that
    folds a part of what it learns into the base. Raises NoModel, and BeingMade as ``merged`` does.
    """
    spec = taken_home(job.job_spec)
    if spec.adapter.averaging.merges_into_base:
        if round_number is not None:
            raise NoModel(BASE_CHANGED)
        return merged(request, job)
    folder = EXPORTS[spec.adapter.family.kind].folder
    if folder is None:
        if round_number is not None:
            raise NoModel("this job trained the model's own weights; take a round's as an artefact")
        return merged(request, job)
    artefact = model_after(job, round_number)
    suffix = "adapter" if round_number is None else f"adapter-round-{round_number}"
    members = adapter_folder(spec, folder, artefact)
    return send_zip(request, members, f"{file_stem(job)}-{suffix}.zip")


def merged(request: HttpRequest, job: Job) -> HttpResponseBase:
    """The whole tuned model. Raises BeingMade, having asked for it, where nobody made it yet."""
    model_after(job, None)
    if why := EXPORTS[taken_home(job.job_spec).adapter.family.kind].not_merged:
        raise NoModel(why)
    if job.merged_artefact is None:
        request_merged(job)
        raise BeingMade("the model is being merged; ask again in a few seconds")
    return stream(request, job.merged_artefact, f"{file_stem(job)}-model.zip")


def request_merged(job: Job) -> None:
    """Queue the export of the merged model; ``Job.merged_artefact`` is set when it is done."""
    send_after_commit(EXPORT, str(job.pk))


def model_after(job: Job, round_number: int | None) -> Artefact:
    """The global model of now, or as one round left it. Raises NoModel."""
    if round_number is None:
        artefact = job.global_artefact
        missing = "this job has no model yet; it has one once its first round has begun"
    else:
        rounds = Round.objects.filter(job=job, number=round_number, global_artefact__isnull=False)
        last = rounds.select_related("global_artefact").order_by("-attempt").first()
        artefact = last.global_artefact if last else None
        missing = f"round {round_number} of this job has not produced a model"
    if artefact is None:
        raise NoModel(missing)
    if artefact.kind == ArtefactKind.LOGITS:
        raise NoModel(ONLY_SAID)
    if artefact.removed_at is not None:
        raise Removed(removed_text(artefact))
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
    config = _text(folder.config_file, folder.config_text(spec))
    weights = ZipMember(folder.weights_file, artefact.size_bytes, partial(bytes_of, artefact))
    return [config, _text("README.md", readme), weights]


def _text(name: str, text: str) -> ZipMember:
    content = text.encode()
    return ZipMember(name, len(content), lambda: [content])


def bytes_of(artefact: Artefact) -> Iterator[bytes]:
    with storage().open(Artefact.path_of(artefact.sha256), "rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


class _Pipe:
    """Where zipfile writes and a response reads; holds no more than one chunk."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Nothing to do: the reader takes what is held."""

    def take(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


def zip_parts(members: Iterable[ZipMember]) -> Iterator[bytes]:
    """An uncompressed zip, piece by piece; weights do not compress."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for member in members:
            info = zipfile.ZipInfo(member.name, (2000, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            large = member.size_bytes >= 2**31
            with archive.open(info, "w", force_zip64=large) as out:
                for part in member.parts():
                    out.write(part)
                    yield pipe.take()
    yield pipe.take()


def send_zip(request: HttpRequest, members: Iterable[ZipMember], name: str) -> HttpResponseBase:
    parts = zip_parts(members)
    # Django gathers a synchronous iterator in memory before it answers over ASGI.
    content = _following(parts) if isinstance(request, ASGIRequest) else parts
    response = StreamingHttpResponse(content, content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-transform"
    return response


async def _following(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    def following() -> bytes | None:
        return next(parts, None)

    step = sync_to_async(following, thread_sensitive=False)
    while (part := await step()) is not None:
        yield part


def file_stem(job: Job) -> str:
    """The job's name as a file name may hold it."""
    return slugify(job.name)[:60] or "job"
