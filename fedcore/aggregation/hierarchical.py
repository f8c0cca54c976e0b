"""Hierarchical averaging: the mean of a cluster is one update that weighs as much as all of them.

The mean of a cluster's updates by weight, with the sum of their weights, is to every further mean
what the updates themselves are: sum_c (W_c / W) sum_{i in c} (w_i / W_c) d_i = sum_i (w_i / W) d_i.
So folding over any tree equals folding at once, up to the rounding of fp32 (Liu et al. 2020, arXiv
1905.06641, with one local round for each level).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fedcore.aggregation.block_pass import FoldInputs, fold_range
from fedcore.aggregation.flat_file import FlatLayout, Shapes
from fedcore.aggregation.flat_inputs import open_flat_updates
from fedcore.aggregation.flat_writer import FlatWriter
from fedcore.aggregation.strategies import Strategy, build
from fedcore.aggregation.update_files import UpdateFile
from fedcore.spec.job import JobSpec
from fedcore.wire.frame import FrameInfo


class _Zeros:
    """What a cluster's mean is added to: an update is a difference already."""

    def read(self, start: int, stop: int) -> Tensor:
        return torch.zeros(stop - start)

    def release(self, start: int, stop: int) -> None:
        """Nothing is mapped."""


def fold_cluster(
    spec: JobSpec,
    shapes: Shapes,
    updates: Sequence[UpdateFile],
    meta: Mapping[str, str],
    out: Path,
    threads: int = 0,
    strategy: Strategy | None = None,
) -> FrameInfo:
    """Write the weighted mean of updates under any codec as one update in fp32.

    ``shapes`` are those of what devices send. Updates pass the job's filters first, and are summed
    in the order of their keys, so the bytes depend on nothing else. Raises FoldError and
    UpdatesRefused as ``fold_files`` does; nothing is written then.
    """
    strategy = replace(strategy or build(spec), optimizers=(), reweighting=None)
    layout = FlatLayout.of(shapes)
    opened = open_flat_updates(strategy, layout, updates, out.parent)
    inputs = FoldInputs(strategy, layout, _Zeros(), None, opened)
    with FlatWriter(out, layout.frame_layout, meta) as writer:
        fold_range(
            inputs, (0, layout.elements), lambda _, start, block: writer.put(start, block), threads
        )
    assert writer.info is not None
    return writer.info
