"""FedPipe's sensitivity scores of matrices: read from reports, and averaged over devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedcore.architecture.matrices import Matrix, matrices
from fedcore.architecture.sizes import Architecture
from fedcore.errors import Fault, SpecError
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import FEDPIPE_SCORES
from fedcore.spec.options.ranks import rank_of

Scores = Mapping[str, float]  # by Matrix.key; only their proportions count
LARGEST_SCORE = 1e30


def adaptable_matrices(spec: JobSpec, sizes: Architecture) -> list[Matrix]:
    """The matrices of the LoRA targets that ``adapter.pattern`` does not exclude.

    Raises SpecError if there are none.
    """
    rows = [row for row in matrices(sizes) if rank_of(spec.adapter, row.name)]
    if not rows:
        raise SpecError([Fault("adapter.pattern", "leaves no matrix to adapt; remove entries")])
    return rows


def mean_scores(spec: JobSpec, sizes: Architecture, scores: Sequence[Scores]) -> dict[str, float]:
    """The mean of the devices' shares, so that the scale of a device's loss does not count."""
    keys = [row.key for row in adaptable_matrices(spec, sizes)]
    sums: dict[str, float] = dict.fromkeys(keys, 0.0)
    for of_device in scores:
        total = math.fsum(of_device.get(key, 0.0) for key in keys)
        for key in keys:
            sums[key] += of_device.get(key, 0.0) / total if total > 0 else 0.0
    return sums if scores else {}


def read_scores(metrics: Mapping[str, Any], sizes: Architecture) -> dict[str, float] | None:
    """The scores in a device's report; None if none is usable.

    Reports are not trusted: unknown names and values that are no finite number >= 0 are ignored.
    """
    reported = metrics.get(FEDPIPE_SCORES)
    if not isinstance(reported, Mapping):
        return None
    keys = {row.key for row in matrices(sizes)}
    scores = {}
    for key, value in reported.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in keys and number and math.isfinite(value) and 0 <= value < LARGEST_SCORE:
            scores[str(key)] = float(value)
    return scores if sum(scores.values()) > 0 else None
