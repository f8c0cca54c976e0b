"""One device's round, with what the loss was before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedcore.methods.session import Session, Update
from fedcore.model.initial import write_initial
from fedcore.spec.job import JobSpec
from fedcore.train.datasets import Source
from fedcore.wire.frame import FrameReader, write_frame
from tests.fedcore.conftest import sentences, write_jsonl


@dataclass(frozen=True)
class Learned:
    """Validation losses of the received model, of the trained one, of the received one again."""

    update: Update
    before: float
    after: float
    again: float


def trained_round(spec: JobSpec, folder: Path) -> Learned:
    """Train once, in one session; the received model stays in ``folder / "g"``."""
    write_initial(spec, folder / "g")
    source = Source(str(write_jsonl(folder / "rows.jsonl", sentences(3, 24))))
    session, frame = Session(folder / "cache", 1), FrameReader(folder / "g")
    before = session.evaluate(spec, folder / "g", source).loss
    update = session.train(spec, folder / "g", source, 1, 0)
    moved = {name: frame[name] + delta for name, delta in update.tensors.items()}
    write_frame(folder / "h", moved, dict(frame.meta))
    after = session.evaluate(spec, folder / "h", source).loss
    return Learned(update, before, after, session.evaluate(spec, folder / "g", source).loss)
