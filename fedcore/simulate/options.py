"""The command line of the simulation: frequent options, and ``--set`` for the others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.hardware.links import LINKS
from fedcore.partition.kinds import SYNTAX
from fedcore.simulate.fleet_options import FleetOptions, speeds_of
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import KIND_PATH, AdapterKind
from fedcore.spec.options.lowrank import LowRankRule
from fedcore.spec.options.method import METHOD_PATH, METHODS, MethodKind
from fedcore.spec.options.participation import MODES
from fedcore.spec.options.strategy import StrategyKind
from fedcore.spec.options.train import OPTIMIZERS, PRECISIONS
from fedcore.spec.parse import parse_spec
from fedcore.spec.staleness import DISCOUNTS

PATHS = {
    "model": "model.name",
    "rounds": "rounds",
    "seed": "seed",
    "threads": "threads",
    "strategy": "strategy.name",
    "server_learning_rate": "strategy.server_learning_rate",
    "momentum": "strategy.beta1",
    "fairness_q": "strategy.fairness_q",
    "proximal_mu": "strategy.proximal_mu",
    "adapter": KIND_PATH,
    "rank": "adapter.rank",
    "alpha": "adapter.alpha",
    "ranks": "adapter.ranks",
    "alphas": "adapter.alphas",
    "adapter_rule": "adapter.aggregation",
    "method": METHOD_PATH,
    "models_above": "distill.models",
    "children": "distill.children",
    "bridge": "distill.bridge",
    "bridge_samples": "distill.samples",
    "local_steps": "train.local_steps",
    "local_epochs": "train.local_epochs",
    "optimizer": "train.optimizer",
    "learning_rate": "train.learning_rate",
    "batch_size": "train.batch_size",
    "precision": "train.precision",
    "prefix": "data.prefix",
    "max_source_tokens": "data.max_source_tokens",
    "max_target_tokens": "data.max_target_tokens",
    "max_validation_examples": "data.max_validation_examples",
    "fraction": "participation.fraction",
    "evaluate_every": "evaluation.every",
    "mode": "participation.mode",
    "buffer_size": "participation.buffer_size",
    "staleness_discount": "participation.staleness_discount",
    "max_staleness": "participation.max_staleness",
    "deadline_s": "participation.deadline_s",
    "deadline_quantile": "participation.deadline_quantile",
    "over_selection": "participation.over_selection",
    "tiers": "participation.tiers",
    "tree": "tree.parents",
}


def parser() -> argparse.ArgumentParser:
    """Options that are left out have the specification's defaults."""
    options = argparse.ArgumentParser(prog="python -m fedcore.simulate", description=__doc__)
    options.add_argument("--data", required=True, help="a .jsonl, .csv or .parquet file, or a name")
    options.add_argument("--text-column", default="", help="empty: found by its usual names")
    options.add_argument("--summary-column", default="")
    options.add_argument("--partition", default="iid", help=SYNTAX)
    options.add_argument(
        "--label-column", default="", help="the column of class labels to partition by"
    )
    options.add_argument(
        "--devices", type=int, default=0, help="0: 3, or one per value of the column"
    )
    options.add_argument("--spec", help="a job specification as JSON, to start from")
    options.add_argument("--json", help="write every round's results to this file")
    options.add_argument(
        "--workdir", help="keep weights and data here (default: a temporary folder)"
    )
    options.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="such as train.clip_norm=0"
    )
    options.add_argument("--fleet", help="a .toml or .json file with a [[device]] table for each")
    options.add_argument("--speeds", help="slowness of each device in turn, such as 1,2,10")
    options.add_argument("--link", default="instant", help=f"{', '.join(LINKS)}; with --speeds")
    options.add_argument(
        "--step-seconds", type=float, default=1.0, help="of a step on a device of slowness 1"
    )
    _add_spec_options(options)
    options.add_argument(
        "--without-flat", action="store_true", help="agglomerative: do not run flat averaging too"
    )
    options.add_argument(
        "--alone",
        action="store_true",
        help="then train each device alone too, and print its gain from the federation",
    )
    options.add_argument("--deterministic", action="store_true", help="the same bits each time")
    options.set_defaults(seed=0)
    return options


def _add_spec_options(options: argparse.ArgumentParser) -> None:
    """An option for each of PATHS, of the type of its default."""
    choices = {
        "adapter": tuple(map(str, AdapterKind)),
        "adapter_rule": tuple(map(str, LowRankRule)),
        "method": tuple(map(str, MethodKind)),
        "strategy": tuple(map(str, StrategyKind)),
        "optimizer": OPTIMIZERS,
        "precision": PRECISIONS,
        "mode": MODES,
        "staleness_discount": tuple(DISCOUNTS),
    }
    for name, path in PATHS.items():
        value: Any = JobSpec()
        for part in path.split("."):
            value = getattr(value, part)
        kind = str if isinstance(value, tuple) else type(value)
        flag = f"--{name.replace('_', '-')}"
        options.add_argument(flag, type=kind, choices=choices.get(name), help=f"sets {path}")


def spec_from(args: argparse.Namespace) -> JobSpec:
    """The job specification of a command line; raises SpecError with every fault."""
    values: dict[str, Any] = {}
    if args.spec:
        try:
            values = parse_spec(json.loads(Path(args.spec).read_text("utf-8"))).to_dict()
        except (OSError, ValueError) as error:
            raise SpecError([Fault("--spec", f"cannot read {args.spec}: {error}")]) from error
    options = [(path, getattr(args, name)) for name, path in PATHS.items()]
    for text in args.set:
        path, equals, value = text.partition("=")
        if not equals:
            raise SpecError([Fault("--set", f"give PATH=VALUE, not {text!r}")])
        try:
            options.append((path, json.loads(value)))
        except ValueError:
            options.append((path, value))
    for path, value in options:
        if value is not None:
            _put(values, path, value)
    if args.deterministic:
        values["deterministic"] = True
    if args.ranks and args.rank is None:  # the largest is what is served
        ranks = [int(word) for word in args.ranks.split(",") if word.isdecimal()]
        _put(values, "adapter.rank", max(ranks, default=JobSpec().adapter.rank))
    for path, value in METHODS[MethodKind(args.method or MethodKind.NONE)].needs.items():
        group, _, name = path.partition(".")
        values.setdefault(group, {}).setdefault(name, value)
    return parse_spec(values)


def fleet_options(args: argparse.Namespace) -> FleetOptions:
    """The fleet of a command line."""
    if not args.step_seconds > 0:
        raise SpecError([Fault("--step-seconds", "give a number above 0")])
    speeds = speeds_of(args.speeds) if args.speeds else ()
    return FleetOptions(speeds, args.link, args.step_seconds, args.fleet or "")


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, last = path.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[last] = value
