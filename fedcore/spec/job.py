"""The job specification that form, REST API, coordinator, device and simulation share.

Every option is declared once, with its default, its check and the words a form shows. Reading a
specification collects all its faults before it refuses, so a person mends them in one go.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_type_hints

from fedcore.spec.checks import boolean, integer, number, option, text
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.options.distill import DistillSpec
from fedcore.spec.options.method import MethodSpec
from fedcore.spec.options.participation import EvaluationSpec, ParticipationSpec
from fedcore.spec.options.strategy import StrategySpec
from fedcore.spec.options.train import ModelSpec, TrainSpec
from fedcore.spec.options.tree import TreeSpec
from fedcore.spec.options.wire import WireSpec


@dataclass(frozen=True)
class DataSpec:
    dataset: str = option(
        "",
        text(0, 100),
        "Dataset",
        "The dataset's name on the devices; empty: each device's first one.",
    )
    prefix: str = option(
        "summarize: ", text(0, 200), "Prompt prefix", "Text that is put before every source text."
    )
    max_source_tokens: int = option(
        512, integer(8, 8192), "Max. source length, tokens", "Longer source texts are cut off."
    )
    max_target_tokens: int = option(
        64, integer(4, 1024), "Max. summary length, tokens", "Longer summaries are cut off."
    )
    validation_fraction: float = option(
        0.15,
        number(0, 0.9, above=True),
        "Validation fraction",
        "Share of each device's examples kept for validation.",
    )
    max_validation_examples: int = option(
        64,
        integer(1, 100_000),
        "Max. validation examples",
        "Each evaluation generates summaries of at most this many examples.",
    )
    min_examples: int = option(
        8,
        integer(2, 10_000_000),
        "Minimum examples per device",
        "Devices with fewer examples are not used.",
    )


@dataclass(frozen=True)
class JobSpec:
    name: str = option("federated job", text(1, 120), "Name", "Name of the job on the pages.")
    model: ModelSpec = field(default_factory=ModelSpec)
    adapter: AdapterSpec = field(default_factory=AdapterSpec)
    data: DataSpec = field(default_factory=DataSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    strategy: StrategySpec = field(default_factory=StrategySpec)
    method: MethodSpec = field(default_factory=MethodSpec)
    distill: DistillSpec = field(default_factory=DistillSpec)
    participation: ParticipationSpec = field(default_factory=ParticipationSpec)
    tree: TreeSpec = field(default_factory=TreeSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    wire: WireSpec = field(default_factory=WireSpec)
    rounds: int = option(5, integer(1, 10_000), "Rounds", "Number of training rounds.")
    seed: int = option(0, integer(0, 2**31 - 1), "Seed", "Seed of every random choice.")
    threads: int = option(
        0,
        integer(0, 1024),
        "CPU threads per device",
        "Threads for training; 0: the device chooses.",
        True,
    )
    deterministic: bool = option(
        False,
        boolean(),
        "Deterministic",
        "The same seed gives the same bits; training is slower on a GPU.",
        True,
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``parse_spec`` of them gives an equal specification."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@lru_cache
def option_types(kind: type) -> dict[str, Any]:
    """The types of a group's options; reading them from annotations costs most of a look-up."""
    return get_type_hints(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class OptionInfo:
    """What a form or a document needs to know of one option. ``path`` is dotted."""

    path: str
    label: str
    help: str
    advanced: bool
    default: Any
    choices: tuple[str, ...] | None


def options(kind: type = JobSpec, path: str = "") -> list[OptionInfo]:
    """Every option in declaration order: the one list that form, REST schema and docs show."""
    infos: list[OptionInfo] = []
    types = option_types(kind)
    for item in fields(kind):
        where = f"{path}.{item.name}" if path else item.name
        if is_dataclass(types[item.name]):
            infos.extend(options(types[item.name], where))  # type: ignore[arg-type]
            continue
        meta = item.metadata
        default = None if item.default is MISSING else item.default
        infos.append(
            OptionInfo(
                where, meta["label"], meta["help"], meta["advanced"], default, meta["check"].choices
            )
        )
    return infos
