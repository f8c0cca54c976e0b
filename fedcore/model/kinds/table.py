"""The model's table of adapter kinds, one module of this package for each."""

from __future__ import annotations

from collections.abc import Mapping

from fedcore.families import member_rows
from fedcore.model.kinds.contract import AdapterModel
from fedcore.spec.options.adapter import AdapterKind

ADAPTER_MODELS: Mapping[AdapterKind, AdapterModel] = member_rows(
    AdapterKind, "fedcore.model.kinds.{}", AdapterModel
)
