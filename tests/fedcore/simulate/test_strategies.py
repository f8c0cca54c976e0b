"""Every strategy by the command line of the simulation, and the options that belong to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedcore.errors import SpecError
from fedcore.simulate.__main__ import main
from fedcore.spec.options.strategy import StrategyKind
from fedcore.spec.parse import parse_spec
from tests.fedcore.conftest import sentences, write_jsonl

# Flags that each strategy is usually run with.
FLAGS: dict[str, dict[str, float | str]] = {
    "fedavgm": {"momentum": 0.5},
    "fedprox": {"proximal-mu": 0.1},
    "fedadam": {"server-learning-rate": 0.01, "momentum": 0.8},
    "fedadamw": {"server-learning-rate": 0.01},
    "fedyogi": {"server-learning-rate": 0.01},
    "fedadagrad": {"server-learning-rate": 0.01},
    "qfedavg": {"fairness-q": 2.0},
    "scaffold": {"optimizer": "sgd"},
}
PATHS = {
    "momentum": ("strategy", "beta1"),
    "proximal-mu": ("strategy", "proximal_mu"),
    "server-learning-rate": ("strategy", "server_learning_rate"),
    "fairness-q": ("strategy", "fairness_q"),
    "optimizer": ("train", "optimizer"),
}


def flags(name: str) -> list[str]:
    return [word for flag, value in FLAGS.get(name, {}).items() for word in (f"--{flag}", value)]  # type: ignore[misc]


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The global weights of both rounds under each strategy."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_jsonl(folder / "rows.jsonl", sentences(1, 48))
    actual = {}
    for name in map(str, StrategyKind):
        out = folder / f"{name}.json"
        words = [
            "--model", str(tiny), "--data", str(data), "--rounds", "2", "--local-steps", "2",
            "--batch-size", "4", "--max-source-tokens", "32", "--max-target-tokens", "12",
            "--max-validation-examples", "3", "--precision", "fp32", "--threads", "1",
            "--deterministic", "--learning-rate", "0.01", "--evaluate-every", "0",
            "--set", "evaluation.initial=false", "--partition", "column:domain",
            "--json", str(out), "--strategy", name,
        ]  # fmt: skip
        assert main([*words, *map(str, flags(name))]) == 0, name
        read = json.loads(out.read_text())
        assert read["spec"]["strategy"]["name"] == name
        for flag, value in FLAGS.get(name, {}).items():
            group, option = PATHS[flag]
            assert read["spec"][group][option] == value
        actual[name] = [row["sha256"] for row in read["rounds"]]
    return actual


@pytest.mark.slow
def test_strategies_give_different_models(models: dict[str, list[str]]) -> None:
    assert len({shas[0] for shas in models.values()}) == 1, "they begin alike"
    assert all(len(set(shas)) == 3 for shas in models.values()), "each round changes the model"
    assert models["fednova"] == models["fedavg"], "where all take equally many steps"
    others = {shas[2] for name, shas in models.items() if name != "fednova"}
    assert len(others) == len(StrategyKind) - 1, "no other two are the same"


SCAFFOLD: dict[str, Any] = {
    "strategy": {"name": "scaffold"},
    "train": {"optimizer": "sgd", "local_steps": 4},
}
REFUSED = [
    ("train", {"optimizer": "adamw"}, "train.optimizer", "must be sgd with scaffold"),
    ("train", {"local_steps": 0}, "train.local_steps", "must be above 0 with scaffold"),
    ("train", {"schedule": "cosine"}, "train.schedule", "must be constant with scaffold"),
    ("train", {"warmup_steps": 2}, "train.warmup_steps", "must be 0 with scaffold"),
    ("participation", {"mode": "buffered", "quorum": 0.5}, "participation.mode", "synchronous"),
    ("strategy", {"clip_update_norm": 1.0}, "strategy.clip_update_norm", "must be 0"),
    ("strategy", {"fold": "median"}, "strategy.fold", "take mean"),
    ("adapter", {"aggregation": "flexlora"}, "strategy.name", "take fedavg"),
]


def test_scaffold_refuses_unsuitable_options() -> None:
    parse_spec(SCAFFOLD)
    for group, changes, path, words in REFUSED:
        values = {**SCAFFOLD, group: {**SCAFFOLD.get(group, {}), **changes}}
        with pytest.raises(SpecError) as error:
            parse_spec(values)
        assert [(f.path, words in f.message) for f in error.value.faults] == [(path, True)]


@pytest.mark.parametrize("name", ["fednova", "qfedavg"])
def test_reweighting_needs_a_mean(name: str) -> None:
    with pytest.raises(SpecError, match=f"ignores the shares that {name} gives"):
        parse_spec({"strategy": {"name": name, "fold": "trimmed_mean"}})


def test_negative_fairness_q_is_refused() -> None:
    with pytest.raises(SpecError, match="from 0 to 100, not -1"):
        parse_spec({"strategy": {"name": "qfedavg", "fairness_q": -1}})
