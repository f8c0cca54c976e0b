"""Every table of a family has a row for each of its members."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fedcore.aggregation import strategies
from fedcore.aggregation.lowrank import product_fold
from fedcore.export.table import EXPORTS
from fedcore.families import MemberName, member_rows
from fedcore.methods.registry import METHOD_TRAINING
from fedcore.model.kinds.table import ADAPTER_MODELS
from fedcore.model.quantise import SCHEMES
from fedcore.plan.cost.kinds.table import ADAPTER_COSTS
from fedcore.plan.cost.merged_base import ADDED_RANK
from fedcore.plan.cost.round import COSTS
from fedcore.plan.cost.workload import WEIGHT_BYTES
from fedcore.plan.fedpipe.setting_costs import BASE_QUALITY
from fedcore.spec.job import options
from fedcore.spec.options.adapter import ADAPTERS, AdapterKind
from fedcore.spec.options.lowrank import LOW_RANK_RULES, LowRankRule
from fedcore.spec.options.method import METHODS, OF_METHOD, Exchange, LocalTraining, MethodKind
from fedcore.spec.options.strategy import STRATEGIES, FoldKind, StrategyKind
from fedcore.spec.options.train import BASES, BasePrecision
from fedcore.spec.rules.method import METHOD_RULES
from fedcore.study.execute import SIMULATIONS
from webapp.jobs.artefacts.update_format import FORMATS
from workers.agent.assignment.methods import METHOD_RUNNERS
from workers.aggregate.initial_model import INITIALISERS
from workers.aggregate.round_fold import FOLDS

ROOT = Path(__file__).parents[2]
CONCRETE = [base for base, row in BASES.items() if not row.follows_training]
TABLES: tuple[tuple[str, Iterable[MemberName], Mapping[Any, Any]], ...] = (
    ("what an adapter kind is", AdapterKind, ADAPTERS),
    ("costs of an adapter kind", AdapterKind, ADAPTER_COSTS),
    ("exports of an adapter kind", AdapterKind, EXPORTS),
    ("tensors of an adapter kind", AdapterKind, ADAPTER_MODELS),
    ("what a low-rank rule is", LowRankRule, LOW_RANK_RULES),
    ("folds of a low-rank rule", LowRankRule, product_fold.RULE_FOLDS),
    ("rank that a rule adds to the base", LowRankRule, ADDED_RANK),
    ("what a method is", MethodKind, METHODS),
    ("rules of a method", MethodKind, METHOD_RULES),
    ("training of a method", MethodKind, METHOD_TRAINING),
    ("costs of a way of learning", LocalTraining, COSTS),
    ("the agent's runner of an exchange", Exchange, METHOD_RUNNERS),
    ("the server's fold of an exchange", Exchange, FOLDS),
    ("the first model of an exchange", Exchange, INITIALISERS),
    ("frames of an exchange", Exchange, FORMATS),
    ("simulation of an exchange", Exchange, SIMULATIONS),
    ("what a base precision is", BasePrecision, BASES),
    ("bytes of a base precision", CONCRETE, WEIGHT_BYTES),
    ("FedPipe's quality of a base precision", BasePrecision, BASE_QUALITY),
    ("what a strategy is", StrategyKind, STRATEGIES),
    ("recipe of a strategy", StrategyKind, strategies.STRATEGIES),
    ("arithmetic of a fold", FoldKind, strategies.FOLDS),
)


@pytest.mark.parametrize(
    ("members", "rows"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES]
)
def test_every_member_has_a_row(members: Iterable[MemberName], rows: Mapping[Any, Any]) -> None:
    assert list(map(str, rows)) and set(map(str, rows)) == set(map(str, members))


def test_every_quantised_base_has_a_storage_scheme() -> None:
    assert {str(base) for base, row in BASES.items() if row.quantised} <= set(SCHEMES)


def test_options_of_a_member_exist() -> None:
    paths = {info.path for info in options()}
    assert set(OF_METHOD) <= paths
    assert {f"adapter.{name}" for row in ADAPTERS.values() for name in row.options} <= paths
    assert {f"strategy.{name}" for row in STRATEGIES.values() for name in row.options} <= paths
    assert {path for row in METHODS.values() for path in row.needs} <= paths


def test_every_adapter_option_belongs_to_one_kind() -> None:
    from fedcore.spec.options.adapter import AdapterSpec

    owned = [name for row in ADAPTERS.values() for name in row.options]
    assert sorted(owned) == sorted(item.name for item in fields(AdapterSpec) if item.name != "kind")


def test_a_member_without_a_module_is_an_error() -> None:
    class Wheel(MemberName):
        ROUND = "round_wheel"

    with pytest.raises(ImportError, match="round_wheel"):
        member_rows(Wheel, "fedcore.model.kinds.{}", int)


def test_no_code_asks_for_the_name_of_a_member() -> None:
    names = "|".join(
        str(member) for family in (AdapterKind, LowRankRule, MethodKind) for member in family
    )
    asks = re.compile(rf'(?:==|!=)\s*"(?:{names})"|adapter\.kind\s*(?:==|!=|in\b|not in\b)')
    matches = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for top in ("fedcore", "webapp", "workers", "benchmarks")
        for path in sorted((ROOT / top).rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if asks.search(line) and "migrations" not in path.parts
    ]
    assert matches == []
