"""The table of exports by adapter kind, one module of this package for each."""

from __future__ import annotations

from collections.abc import Mapping

from fedcore.export.contract import Export
from fedcore.families import member_rows
from fedcore.spec.options.adapter import AdapterKind

EXPORTS: Mapping[AdapterKind, Export] = member_rows(AdapterKind, "fedcore.export.{}", Export)
