"""The settings that FedPipe can choose for a device, and the cost of each.

The cost is the planner's estimate split into a part without adapters and a part for each matrix
that grows with its rank. This split is exact for memory. For time it is exact once the gradient
passes through every layer that trains. If the lowest adapter sits higher, training is faster than
the split says, never slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fedcore.architecture.matrices import Matrix, matrices
from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.allocation import Setting
from fedcore.plan.cost.candidate import Candidate, at_once, steps_of
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.round import device_step
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.spec.job import JobSpec
from fedcore.spec.options.train import BasePrecision

# Share of the score that a setting retains, per mille; 0: never tried. Our choice: weights are
# quantised and batches halved only where that allows noticeably higher ranks.
FULL_QUALITY, HALF_BATCH = 1000, 850
BASE_QUALITY: Mapping[BasePrecision, int] = {
    BasePrecision.AUTO: FULL_QUALITY,
    BasePrecision.FP32: 0,  # never smaller than auto
    BasePrecision.BF16: 990,
    BasePrecision.INT8: 970,
    BasePrecision.NF4: 930,
}
PerRank = dict[Matrix, float]


@dataclass(frozen=True)
class Costs:
    """Cost of a round: ``memory`` (peak bytes) and ``seconds`` (None: not known) without adapters.

    ``memory_per_rank`` and ``seconds_per_rank``: what each rank of a matrix adds. ``loading``:
    bytes needed whatever trains.
    """

    memory: float
    loading: float
    seconds: float | None
    memory_per_rank: PerRank
    seconds_per_rank: PerRank


def settings(spec: JobSpec, precision: str, timed: bool) -> list[Setting]:
    """All settings to try, by falling quality; among equals the fastest first.

    ``precision``: what the device trains in; ``timed``: its time is limited. Batches are halved
    only with a fixed number of local steps: otherwise smaller batches save no time, and processing
    fewer examples at a time saves as much memory.
    """
    job_base = spec.model.base_family
    qualities: Mapping[BasePrecision, int] = {job_base.base: FULL_QUALITY}
    if job_base.follows_training:  # so auto is the precision of training already
        tried = (base for base, quality in BASE_QUALITY.items() if quality and base != precision)
        qualities = {base: BASE_QUALITY[base] for base in tried}
    halve_batches = timed and spec.train.local_steps > 0
    batch_sizes = [*_halvings(spec.train.batch_size)] if halve_batches else [spec.train.batch_size]
    choices = []
    for base, base_quality in qualities.items():
        for batch in batch_sizes:
            halved = round(math.log2(spec.train.batch_size / batch))
            quality = round(base_quality * (HALF_BATCH / 1000) ** halved)
            choices += [
                Setting(str(base), batch, part, encoder_trains, quality)
                for part in _halvings(min(batch, spec.train.micro_batch or batch))
                for encoder_trains in ((True, False) if timed else (True,))
            ]
    return sorted(choices, key=lambda item: (-item.quality, -item.at_once))


def _halvings(size: int) -> Iterator[int]:
    yield size
    while size > 1:
        size //= 2
        yield size


def costs(
    spec: JobSpec,
    setting: Setting,
    sizes: Architecture,
    device: Candidate,
    adaptable: list[Matrix],
) -> Costs:
    """The cost of a setting with adapters on the ``adaptable`` matrices."""
    changed, hardware = setting.applied_to(spec), device.hardware
    precision = hardware.precision_of(spec.train.precision)
    workload = Workload.of(changed, sizes, precision, hardware.accelerator)
    bare = _with_ranks(workload, sizes, adaptable, None)
    peak, loading = _peak_and_loading(changed, bare, device)
    seconds = _seconds(changed, bare, device)
    rank = spec.adapter.rank
    memory_per_rank: PerRank = {}
    seconds_per_rank: PerRank = {}
    by_shape: dict[object, tuple[float, float]] = {}
    # The last matrix of a shape costs the most, since the gradient comes from above.
    for matrix in reversed(adaptable):
        shape = (matrix.per_rank, matrix.per_source, matrix.encodes)
        if shape not in by_shape:
            single = _with_ranks(workload, sizes, adaptable, matrix)
            more_bytes = _peak_and_loading(changed, single, device)[0] - peak
            more_s = (_seconds(changed, single, device) or 0.0) - (seconds or 0.0)
            by_shape[shape] = (more_bytes / rank, more_s / rank)
        memory_per_rank[matrix], seconds_per_rank[matrix] = by_shape[shape]
    return Costs(peak, loading, seconds, memory_per_rank, seconds_per_rank)


def _with_ranks(
    workload: Workload, sizes: Architecture, adaptable: list[Matrix], adapted: Matrix | None
) -> Workload:
    """The workload with rank 0 on all adaptable matrices, so that gradients pass, but for one."""
    ranks = {matrix.name: 0 for matrix in adaptable}
    if adapted is not None:
        ranks[adapted.name] = workload.rank
    return replace(workload, ranks=tuple(ranks.get(row.name, -1) for row in matrices(sizes)))


def _peak_and_loading(spec: JobSpec, workload: Workload, device: Candidate) -> tuple[float, float]:
    source, target = device.longest
    batch = BatchShape(at_once(spec, source + target), source, target)
    footprint = memory(workload, batch, device.hardware.accelerator)
    return max(footprint.training, footprint.sending), footprint.loading


def _seconds(spec: JobSpec, workload: Workload, device: Candidate) -> float | None:
    examples = at_once(spec, sum(device.longest))
    step = device_step(spec, workload, device, examples)
    return None if step is None else steps_of(spec, device) * step.seconds
