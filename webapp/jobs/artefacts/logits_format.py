"""What the nodes of a tree of models send, where no weights are averaged: checked by its header.

A node sends what its model says on the bridge samples (``fedcore.formats.logits_header``); the
parent sends its model in the last round, for somebody to take home. What both must look like is
noted in ``Job.model_info`` when the job begins.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fedcore.errors import WireError
from fedcore.formats.codec_chain import Shapes
from fedcore.formats.frame_header import FrameHeader
from fedcore.formats.logits_header import (
    KIND,
    MODEL_KIND,
    ExpectedLogits,
    check_meta,
    check_packed_header,
)
from fedcore.rounds.types import Task
from webapp.jobs.models import Assignment, Job

KEY = "tree"  # in Job.model_info
HEADER_BYTES = 65_536  # a frame's metadata may add so much


@dataclass(frozen=True)
class Tree:
    """The bridge that a job's nodes share, and the weights of the parent's that are its to send.

    ``fingerprint`` is that of the parent's base, ``numbers`` and ``bytes`` are those of its frame.
    """

    bridge: str
    rows: int
    vocabulary: int
    fingerprint: str
    numbers: int
    bytes: int

    def to_dict(self) -> dict[str, object]:
        return {KEY: asdict(self)}


def expected(job: Job) -> ExpectedLogits:
    """What a frame of logits of the job must be. The job's model must be there."""
    tree, options = tree_of(job), job.job_spec.distill
    return ExpectedLogits(
        tree.bridge, tree.rows, options.top_k, tree.vocabulary, options.temperature
    )


def tree_of(job: Job) -> Tree:
    return Tree(**job.model_info[KEY])


def sends_model(assignment: Assignment) -> bool:
    """Whether it is the parent's model that is due: nobody listens to what it says last."""
    row = assignment.round
    return assignment.task == Task.FOLD.value and row.number >= row.job.job_spec.rounds


def shapes(job: Job) -> Shapes:
    """Names and shapes of what each child sends."""
    return {name: shape for name, (_, shape) in expected(job).layout.items()}


def max_bytes(assignment: Assignment) -> int:
    """The largest frame that an honest node sends."""
    job = assignment.round.job
    due = tree_of(job).bytes if sends_model(assignment) else expected(job).payload_bytes
    return due + HEADER_BYTES


def kind(assignment: Assignment) -> str:
    """What the frame has to call itself."""
    return MODEL_KIND if sends_model(assignment) else KIND


def check(header: FrameHeader, assignment: Assignment) -> None:
    """Raise WireError for a frame that is not what is due, by its header.

    Of a model it is the base, the types and how many numbers there are; the aggregation, which has
    the model's files, looks at names and shapes.
    """
    job = assignment.round.job
    if not sends_model(assignment):
        check_packed_header(header, expected(job))
        return
    tree = tree_of(job)
    check_meta(header, {"fingerprint": tree.fingerprint})
    if odd := sorted(name for name, item in header.tensors.items() if item.dtype != "F32"):
        raise WireError(f"tensor {odd[0]!r} is not fp32")
    if header.elements != tree.numbers:
        raise WireError(f"the model has {header.elements} numbers where {tree.numbers} are due")
