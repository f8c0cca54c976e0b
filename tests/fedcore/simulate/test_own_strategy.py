"""A strategy value that no option names, passed to ``simulate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fedcore.aggregation.folds import MEDIAN, WEIGHTED_MEAN
from fedcore.aggregation.server_optimizers import Moments, ServerOptimizer
from fedcore.aggregation.strategies import Strategy, build, clip_norm
from fedcore.errors import SpecError
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import RoundResult
from fedcore.spec.job import JobSpec
from fedcore.train.datasets import Source
from tests.fedcore.conftest import sentences, spec_of, write_jsonl


def _sign(delta: Tensor, moments: Moments, weights: Tensor) -> tuple[Tensor, Moments]:
    return 1e-3 * delta.sign(), {"rounds": moments["rounds"] + 1}


SIGN = ServerOptimizer("sign", {"rounds": 0.0}, _sign)
CLIPPED_SIGN = Strategy("clipped-sign", (clip_norm(0.5),), WEIGHTED_MEAN, (SIGN,))


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    return {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 20))))
        for seed, name in enumerate(("attic", "barn", "kitchen"))
    }


def run(
    spec: JobSpec, sources: dict[str, Source], folder: Path, strategy: Strategy | None = None
) -> list[RoundResult]:
    return simulate(spec, sources, folder, strategy=strategy)


def test_own_strategy_runs_and_changes_the_model(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    spec = spec_of(tiny)
    results = run(spec, sources, tmp_path / "own", CLIPPED_SIGN)
    assert [item.mean["loss"] > 0 for item in results] == [True] * 3
    assert len({item.sha256 for item in results}) == 3
    assert results[1].sha256 != run(spec, sources, tmp_path / "fedavg")[1].sha256


def test_own_copy_of_fedavg_equals_fedavg(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    spec = spec_of(tiny)
    copy = replace(build(spec), name="copy")
    ours, named = (
        run(spec, sources, tmp_path / s, c) for s, c in (("own", copy), ("fedavg", None))
    )
    assert [item.sha256 for item in ours] == [item.sha256 for item in named]


def test_own_filters_apply_within_clusters(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    tree = {"parents": ["attic=hall", "barn=hall"]}
    spec = spec_of(tiny, tree=tree, rounds=1)
    stages = build(spec).optimizers
    clipped = Strategy("clipped", (clip_norm(1e-3),), WEIGHTED_MEAN, stages)
    flat = run(replace(spec, tree=replace(spec.tree, parents=())), sources, tmp_path / "a", clipped)
    assert run(spec, sources, tmp_path / "b", clipped)[1].mean["loss"] == pytest.approx(
        flat[1].mean["loss"], rel=1e-5
    )


REFUSED: list[tuple[dict[str, Any], Strategy, str]] = [
    ({"strategy": {"name": "fedprox"}}, CLIPPED_SIGN, "strategy.name"),
    ({}, replace(CLIPPED_SIGN, objective="proximal"), "strategy.name"),
    ({"adapter": {"aggregation": "flexlora"}}, CLIPPED_SIGN, "adapter.aggregation"),
]


@pytest.mark.parametrize(("options", "strategy", "path"), REFUSED)
def test_unsuitable_strategies_are_refused(
    tiny: Path, tmp_path: Path, options: dict[str, Any], strategy: Strategy, path: str
) -> None:
    with pytest.raises(SpecError) as caught:
        simulate(spec_of(tiny, **options), {}, tmp_path, strategy=strategy)
    assert [fault.path for fault in caught.value.faults] == [path]


def test_own_strategy_may_use_a_median(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    spec = spec_of(tiny, rounds=1)
    median = Strategy("median", (), MEDIAN, build(spec).optimizers)
    named = run(replace(spec, strategy=replace(spec.strategy, fold="median")), sources, tmp_path)
    assert run(spec, sources, tmp_path, median)[1].sha256 == named[1].sha256
