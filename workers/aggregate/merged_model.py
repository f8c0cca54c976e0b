"""Exports a job's merged model as one zip file."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from uuid import UUID

from fedcore.errors import EdgewiseError
from fedcore.formats.frame_header import sha256_file
from fedcore.model.export_folder import export_merged
from fedcore.spec.levels import exported_spec
from webapp.common.units import size
from webapp.jobs.artefacts.store import incoming_dir, local_file, store
from webapp.jobs.lifecycle.event_log import job_event
from webapp.jobs.models import ArtefactKind, EventLevel, Job


def export_merged_model(job_id: UUID) -> None:
    """Merge the adapter into the base model, and store the zipped model folder as an artefact."""
    job = Job.objects.select_related("global_artefact").get(pk=job_id)
    weights = job.global_artefact
    if weights is None or weights.kind != ArtefactKind.GLOBAL:
        return
    with tempfile.TemporaryDirectory(dir=incoming_dir()) as folder:
        archive = Path(folder) / "merged.zip"
        try:
            with local_file(weights) as path:
                model = export_merged(exported_spec(job.job_spec), path, Path(folder) / "model")
            _write_zip(model, archive)
            origin = f"export:{weights.sha256}"
            artefact = store(archive, sha256_file(archive), ArtefactKind.MERGED, origin)
        except EdgewiseError as error:
            job_event(job, f"cannot export the merged model: {error}", EventLevel.ERROR)
            return
    Job.objects.filter(pk=job_id, global_artefact=weights).update(merged_artefact=artefact)
    job_event(job, f"merged model ready: {size(artefact.size_bytes)}")


def _write_zip(folder: Path, archive: Path) -> None:
    """Uncompressed, as weights do not shrink; a fixed date makes equal models equal bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, allowZip64=True) as out:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = zipfile.ZipInfo(str(path.relative_to(folder)), (1980, 1, 1, 0, 0, 0))
                info.external_attr = 0o644 << 16
                with path.open("rb") as source, out.open(info, "w", force_zip64=True) as target:
                    while chunk := source.read(2**20):
                        target.write(chunk)
