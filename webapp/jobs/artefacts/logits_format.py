"""Frames of agglomerative jobs, checked by their headers.

A node sends its model's logits on the bridge samples (``fedcore.formats.logits_header``). In the
last round the parent sends its model instead, for download. ``Job.model_info`` stores the expected
form of both from the start of the job.
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
HEADER_BYTES = 65_536  # allowance for a frame's metadata


@dataclass(frozen=True)
class Tree:
    """The bridge that the nodes share, and the frame in which the parent sends its model.

    ``fingerprint``: of the parent's base; ``numbers``, ``bytes``: elements and size of the frame.
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
    """The expected frame of logits. The job must have its initial model."""
    tree, options = tree_of(job), job.job_spec.distill
    return ExpectedLogits(
        tree.bridge, tree.rows, options.top_k, tree.vocabulary, options.temperature
    )


def tree_of(job: Job) -> Tree:
    return Tree(**job.model_info[KEY])


def sends_model(assignment: Assignment) -> bool:
    """Whether the parent sends its model: in the last round nobody uses its logits."""
    row = assignment.round
    return assignment.task == Task.FOLD.value and row.number >= row.job.job_spec.rounds


def shapes(job: Job) -> Shapes:
    """Names and shapes of the logits that each child sends."""
    return {name: shape for name, (_, shape) in expected(job).layout.items()}


def max_bytes(assignment: Assignment) -> int:
    """The largest frame that is accepted."""
    job = assignment.round.job
    size = tree_of(job).bytes if sends_model(assignment) else expected(job).payload_bytes
    return size + HEADER_BYTES


def kind(assignment: Assignment) -> str:
    """The expected ``kind`` in the frame's metadata."""
    return MODEL_KIND if sends_model(assignment) else KIND


def check(header: FrameHeader, assignment: Assignment) -> None:
    """Raises WireError for an unexpected frame.

    Of a model this checks base, data types and number of elements. The aggregation, which has the
    model's files, checks names and shapes.
    """
    job = assignment.round.job
    if not sends_model(assignment):
        check_packed_header(header, expected(job))
        return
    tree = tree_of(job)
    check_meta(header, {"fingerprint": tree.fingerprint})
    if wrong := sorted(name for name, item in header.tensors.items() if item.dtype != "F32"):
        raise WireError(f"tensor {wrong[0]!r} is not fp32")
    if header.elements != tree.numbers:
        raise WireError(f"the model has {header.elements} numbers, expected {tree.numbers}")
