"""The table of exports by adapter kind, one module of this package for each."""

from __future__ import annotations

from collections.abc import Mapping

from fedcore.export.contract import Export
from fedcore.families import table
from fedcore.spec.options.adapter import AdapterKind

EXPORTS: Mapping[AdapterKind, Export] = table(AdapterKind, "fedcore.export.{}", Export)
