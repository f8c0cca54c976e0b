"""The server's part of a model tree (agglomerative learning): the bridge, and the parent's logits.

No weights are averaged here. A round's result is the parent's logits on the bridge samples, and in
the last round the parent's own model. Both are the device's frame without job, round and slot.
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
from fedcore.spec.levels import exported_spec, level_specs
from fedcore.wire.frame import FrameReader, write_frame
from webapp.jobs.artefacts import logits_format, update_format
from webapp.jobs.artefacts.store import incoming_dir, local_file, refuse_full_disk, store
from webapp.jobs.lifecycle import cluster_folds
from webapp.jobs.models import ArtefactKind, Assignment, Job, Round
from workers.aggregate import fold_inputs
from workers.aggregate.result import FoldedRound, InitialArtefact

UPDATE_KEYS = ("job", "round", "base", "slot")  # metadata of an update, not of its content


def create_bridge(job: Job, folder: Path) -> InitialArtefact:
    """Build the bridge, check that all models tokenise it alike, and store its description.

    Raises ModelError for models with different vocabularies, DataError for a bridge without
    samples.
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
    above = write_initial(exported_spec(spec), first)
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
    artefact = store(path, frame.sha256, ArtefactKind.LOGITS, "aggregate")
    info = replace(below, size=like.payload_bytes)
    return InitialArtefact(info, artefact, tree.to_dict())


def relay_logits(row: Round) -> FoldedRound:
    """Make the parent's frame the round's result. Raises FoldError where there is none."""
    began = time.perf_counter()
    item = _parent_assignment(row)
    is_model = logits_format.sends_model(item)
    assert item.update_artefact is not None and row.base_artefact is not None
    with refuse_full_disk(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=incoming_dir())))
        try:
            sent = stack.enter_context(local_file(item.update_artefact))
            update_format.check_update(read_header(sent), row.base_artefact, item)
            out = folder / "global.safetensors"
            if is_model:
                first = folder / "first.safetensors"
                write_initial(exported_spec(row.job.job_spec), first)
                if read_header(sent).shapes != read_header(first).shapes:
                    raise WireError("its tensors are not the parent model's")
                model = FrameReader(sent)
                invalid = [name for name in model if not bool(model[name].isfinite().all())]
                if invalid:
                    raise WireError(f"tensor {invalid[0]!r} has numbers that are not finite")
            else:
                read_packed(sent, logits_format.expected(row.job))  # checks every number
            # Write a frame without the update's metadata, so that equal content is one artefact.
            report = FrameReader(sent)
            meta = {key: value for key, value in report.meta.items() if key not in UPDATE_KEYS}
            if meta["kind"] == MODEL_KIND:
                meta["kind"] = "global"
            frame = write_frame(out, {name: report[name] for name in report}, meta)
        except (WireError, FileNotFoundError) as error:
            raise FoldError(f"{item.device.name} sent an invalid frame: {error}") from error
        kind = ArtefactKind.GLOBAL if is_model else ArtefactKind.LOGITS
        artefact = store(out, frame.sha256, kind, "aggregate")
    return FoldedRound(
        artefact,
        slots=[item.slot],
        weights={item.slot: 1.0},
        clusters=cluster_folds.fold_summaries(row),
        seconds=time.perf_counter() - began,
        bytes_read=item.update_artefact.size_bytes,
    )


def _parent_assignment(row: Round) -> Assignment:
    """The assignment in which the parent reported this round."""
    reports = list(fold_inputs.updates_of(row).values())
    if len(reports) != 1 or reports[0].task != Task.FOLD.value:
        names = ", ".join(item.device.name for item in reports) or "no device"
        raise FoldError(
            f"the parent sent nothing in this round (updates came from {names}); "
            "is it still enrolled?"
        )
    return reports[0]
