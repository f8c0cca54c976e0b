"""A tree of models on the server: which bridge its nodes share, and what the parent tells them.

No weights are averaged here. A round's result is what the parent says on the bridge, and in the
last round the parent's own model, as the device has sent it but for whose and which round's it is.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fedcore.errors import FoldError, WireError
from fedcore.formats.frame_header import read_header
from fedcore.formats.logits_header import BRIDGE_KIND, MODEL_KIND
from fedcore.methods.agglomerative.bridge_data import bridge_source
from fedcore.methods.agglomerative.node import check_bridges, expected, read_bridge, vocabulary_of
from fedcore.methods.distillation.logits_frame import read_packed
from fedcore.model.initial import write_initial
from fedcore.rounds.types import Task
from fedcore.spec.job import JobSpec
from fedcore.spec.levels import level_specs, taken_home
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame
from webapp.jobs.artefacts import logits_format, update_format
from webapp.jobs.artefacts.store import incoming_dir, local_file, refuse_full_disk, store
from webapp.jobs.lifecycle import cluster_folds
from webapp.jobs.models import ArtefactKind, Assignment, Job, Round
from workers.aggregate import fold_inputs
from workers.aggregate.result import First, Result

ENVELOPE = ("job", "round", "base", "slot")  # what a device's frame says beside its content


def begin(job: Job, folder: Path) -> First:
    """Make the bridge, check that all models read it alike, and write which one it is.

    Raises ModelError for models of unlike vocabularies, DataError for a bridge without samples.
    """
    spec = job.job_spec
    specs = level_specs(spec)
    vocabulary_of(specs)
    bridge = bridge_source(spec.distill, folder)
    bridges = [read_bridge(item, bridge, folder / "cache") for item in specs]
    check_bridges(specs, bridges)
    like = expected(spec, bridges[0])
    below = write_initial(spec, folder / "below.safetensors")
    first = folder / "above.safetensors"
    above = write_initial(taken_home(spec), first)
    path = folder / "bridge.safetensors"
    frame = write_frame(path, {}, {"kind": BRIDGE_KIND, "rows": str(like.rows), **like.meta})
    tree = logits_format.Tree(
        bridge=like.bridge,
        rows=like.rows,
        vocabulary=like.vocabulary,
        fingerprint=above.fingerprint,
        numbers=read_header(first).elements,
        bytes=above.size,
    )
    kept = store(path, frame.sha256, ArtefactKind.LOGITS, "aggregate")
    return First(replace(below, size=like.payload_bytes), kept, tree.to_dict())


def relay(row: Round) -> Result:
    """What the parent sent becomes the round's result. Raises FoldError where there is nothing."""
    began = time.perf_counter()
    item = _sent(row)
    model = logits_format.sends_model(item)
    assert item.update_artefact is not None and row.base_artefact is not None
    with refuse_full_disk(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=incoming_dir())))
        try:
            sent = stack.enter_context(local_file(item.update_artefact))
            update_format.check_update(sent, row.base_artefact, item)
            out = folder / "global.safetensors"
            frame = _unwrapped(sent, out) if model else _word(row.job, sent, out)
            if model:
                _check_names(row.job.job_spec, sent, folder / "first.safetensors")
        except (WireError, FileNotFoundError) as error:
            raise FoldError(f"{item.device.name} sent no usable frame: {error}") from error
        kind = ArtefactKind.GLOBAL if model else ArtefactKind.LOGITS
        kept = store(out, frame.sha256, kind, "aggregate")
    return Result(
        kept,
        slots=[item.slot],
        weights={item.slot: 1.0},
        clusters=cluster_folds.fold_summaries(row),
        seconds=time.perf_counter() - began,
        bytes_read=item.update_artefact.size_bytes,
    )


def _sent(row: Round) -> Assignment:
    """The parent's answer of this round."""
    found = list(fold_inputs.reported(row).values())
    if len(found) != 1 or found[0].task != Task.FOLD.value:
        names = ", ".join(item.device.name for item in found) or "nobody"
        raise FoldError(
            f"the round has no parent's word, only that of {names}; is the parent still enrolled?"
        )
    return found[0]


def _word(job: Job, sent: Path, out: Path) -> FrameInfo:
    """What the parent says, its numbers looked at as every child will. Raises WireError."""
    read_packed(sent, logits_format.expected(job))
    return _unwrapped(sent, out)


def _unwrapped(sent: Path, out: Path) -> FrameInfo:
    """The content of a device's frame, so that equal content is one artefact."""
    frame = FrameReader(sent)
    meta = {key: value for key, value in frame.meta.items() if key not in ENVELOPE}
    if meta["kind"] == MODEL_KIND:
        meta["kind"] = "global"
    return write_frame(out, {name: frame[name] for name in frame}, meta)


def _check_names(spec: JobSpec, sent: Path, first: Path) -> None:
    """Raise WireError where a model's tensors are not those of the parent's, or not finite."""
    write_initial(taken_home(spec), first)
    if read_header(sent).shapes != read_header(first).shapes:
        raise WireError("its tensors are not those of the parent's model")
    frame = FrameReader(sent)
    if odd := [name for name in frame if not bool(frame[name].isfinite().all())]:
        raise WireError(f"tensor {odd[0]!r} holds numbers that are not finite")
