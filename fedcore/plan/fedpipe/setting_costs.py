"""What FedPipe can change on a device beside its adapters, and what each such setting costs.

By the planner's own estimator, taken apart: a part that is there without any adapter, and one for
each matrix that grows with its rank. Memory is such a sum exactly. Time is one as soon as the
gradient passes through all layers that train; where the lowest adapter sits higher up it is less,
so a plan may be a little better than it says and never worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedcore.architecture.matrices import Matrix, matrices
from fedcore.architecture.sizes import Architecture
from fedcore.plan.cost.candidate import Candidate, at_once, steps_of
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.round import device_step
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.plan.fedpipe.types import Setting
from fedcore.spec.job import JobSpec

# What a setting's score counts for, per mille; our choice, so that weights are rounded and steps
# are smaller only where that buys noticeably more to learn with.
BASES = {"auto": 1000, "bf16": 990, "int8": 970, "nf4": 930}
HALF_BATCH = 850
Rising = dict[Matrix, float]


@dataclass(frozen=True)
class Costs:
    """Of a round: bytes at its peak and seconds of training (None: not known), without adapters.

    ``memory_per_rank`` and ``seconds_per_rank`` are what each rank of a matrix adds. ``loading``
    bytes must be there whatever trains.
    """

    memory: float
    loading: float
    seconds: float | None
    memory_per_rank: Rising
    seconds_per_rank: Rising


def settings(spec: JobSpec, precision: str, timed: bool) -> list[Setting]:
    """All that may be tried, the best first; of settings alike in quality the quickest.

    ``precision`` is what the device trains in, ``timed`` whether its time is bounded. A smaller
    batch saves no memory that fewer examples at a time would not save as well, and time only where
    the number of steps is given; so batches are halved there alone.
    """
    bases = [spec.model.base] if spec.model.base != "auto" else [*BASES]
    if precision == "bf16" and "bf16" in bases and len(bases) > 1:
        bases.remove("bf16")
    sizes = list(_halved(spec.train.batch_size, timed and spec.train.local_steps > 0))
    found = [
        Setting(base, batch, part, whole, _quality(spec, base, batch))
        for base in bases
        for batch in sizes
        for part in _halved(min(batch, spec.train.micro_batch or batch), True)
        for whole in ((True, False) if timed else (True,))
    ]
    return sorted(found, key=lambda item: (-item.quality, -item.at_once))


def _halved(size: int, wanted: bool) -> Iterator[int]:
    yield size
    while wanted and size > 1:
        size //= 2
        yield size


def _quality(spec: JobSpec, base: str, batch: int) -> int:
    rounded = 1000 if spec.model.base != "auto" else BASES[base]
    halvings = round(math.log2(spec.train.batch_size / batch))
    return round(rounded * (HALF_BATCH / 1000) ** halvings)


def costs(
    spec: JobSpec, setting: Setting, sizes: Architecture, device: Candidate, wanted: list[Matrix]
) -> Costs:
    """What a setting costs with adapters on ``wanted``."""
    changed, hardware = setting.of(spec), device.hardware
    precision = hardware.precision_of(spec.train.precision)
    method = Workload.of(changed, sizes, precision, hardware.accelerator)
    bare = _with(method, sizes, wanted, None)
    held, seconds = _memory(changed, bare, device), _seconds(changed, bare, device)
    rank = spec.adapter.rank
    more_bytes: Rising = {}
    more_seconds: Rising = {}
    alike: dict[object, tuple[float, float]] = {}
    for row in reversed(wanted):  # the last of its kind costs the most: a gradient comes from below
        kind = (row.per_rank, row.per_source, row.encodes)
        if kind not in alike:
            one = _with(method, sizes, wanted, row)
            grown = _memory(changed, one, device)[0] - held[0]
            slower = (_seconds(changed, one, device) or 0.0) - (seconds or 0.0)
            alike[kind] = (grown / rank, slower / rank)
        more_bytes[row], more_seconds[row] = alike[kind]
    return Costs(*held, seconds, more_bytes, more_seconds)


def _with(
    method: Workload, sizes: Architecture, wanted: list[Matrix], one: Matrix | None
) -> Workload:
    """With adapters of rank 0 on all wanted matrices, so that gradients pass, but for one."""
    given = {row.name: 0 for row in wanted}
    if one is not None:
        given[one.name] = method.rank
    return replace(method, own=tuple(given.get(row.name, -1) for row in matrices(sizes)))


def _memory(spec: JobSpec, method: Workload, device: Candidate) -> tuple[float, float]:
    source, target = device.longest
    work = BatchShape(at_once(spec, source + target), source, target)
    found = memory(method, work, device.hardware.accelerator)
    return max(found.training, found.sending), found.loading


def _seconds(spec: JobSpec, method: Workload, device: Candidate) -> float | None:
    examples = at_once(spec, sum(device.longest))
    step = device_step(spec, method, device, examples)
    return None if step is None else steps_of(spec, device) * step.seconds
