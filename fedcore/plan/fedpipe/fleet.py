"""FedPipe for all devices of a job: their scores read, gaps filled, a plan for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedcore.architecture.matrices import matrices
from fedcore.architecture.sizes import Architecture
from fedcore.errors import Fault, SpecError
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.fedpipe.allocate import Scores, candidates, choose
from fedcore.plan.fedpipe.types import Allocation, Budget
from fedcore.spec.job import JobSpec
from fedcore.spec.options.method import FEDPIPE_SCORES


def plans(
    spec: JobSpec,
    sizes: Architecture,
    devices: Sequence[Candidate],
    scores: Mapping[str, Scores] | None = None,
) -> dict[str, Allocation]:
    """A plan for each device by name. Raises SpecError with every device that none fits.

    ``scores`` by device; one that is missing gets the mean of the others', and without any all
    matrices count alike.
    """
    found: dict[str, Allocation] = {}
    faults: list[Fault] = []
    known = dict(scores or {})
    common = mean_scores(spec, sizes, list(known.values()))
    for device in devices:
        budget = Budget.of(spec, device)
        try:
            own = known.get(device.name, common)
            found[device.name] = choose(spec, sizes, device, own, budget)
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(_together(faults))
    return found


def _together(faults: Sequence[Fault]) -> list[Fault]:
    """What is wrong with several devices alike is said once, with all their names."""
    names: dict[str, list[str]] = {}
    for fault in faults:
        names.setdefault(fault.message, []).append(fault.path)
    return [Fault(", ".join(named), message) for message, named in names.items()]


def mean_scores(spec: JobSpec, sizes: Architecture, scores: Sequence[Scores]) -> dict[str, float]:
    """The mean of the devices' shares, so that a loud loss counts no more than a quiet one."""
    keys = [row.key for row in candidates(spec, sizes)]
    total: dict[str, float] = dict.fromkeys(keys, 0.0)
    for own in scores:
        whole = math.fsum(own.get(key, 0.0) for key in keys)
        for key in keys:
            total[key] += own.get(key, 0.0) / whole if whole > 0 else 0.0
    return total if scores else {}


def read_scores(metrics: Mapping[str, Any], sizes: Architecture) -> dict[str, float] | None:
    """The scores of a device's report; None where it has none that can be used.

    Nobody trusts a device: unknown names and what is no number from 0 on count for nothing.
    """
    told = metrics.get(FEDPIPE_SCORES)
    if not isinstance(told, Mapping):
        return None
    keys = {row.key for row in matrices(sizes)}
    found = {
        str(key): float(value) for key, value in told.items() if key in keys and _is_score(value)
    }
    return found if sum(found.values()) > 0 else None


def _is_score(value: Any) -> bool:
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    return right and math.isfinite(value) and 0 <= value < 1e30
