"""The planner's table of adapter kinds, one module of this package for each."""

from __future__ import annotations

from collections.abc import Mapping

from fedcore.architecture.sizes import FP32_BYTES, Architecture
from fedcore.families import member_rows
from fedcore.plan.cost.kinds.contract import AdapterCost
from fedcore.spec.options.adapter import AdapterKind, AdapterSpec

ADAPTER_COSTS: Mapping[AdapterKind, AdapterCost] = member_rows(
    AdapterKind, "fedcore.plan.cost.kinds.{}", AdapterCost
)


def trained_parameters(sizes: Architecture, adapter: AdapterSpec) -> int:
    """Weights that train and travel in a job with these options, patterns not counted."""
    return ADAPTER_COSTS[adapter.family.kind].parameters(sizes, adapter)


def payload_bytes(sizes: Architecture, adapter: AdapterSpec) -> int:
    """Bytes of one artefact one way, fp32, its small header not counted."""
    return FP32_BYTES * trained_parameters(sizes, adapter)
