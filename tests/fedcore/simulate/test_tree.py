"""A simulated federation over a tree: the flat one's weights to 1e-6, and each level's bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedcore.errors import SpecError
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import RoundResult, global_file
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from fedcore.wire.frame import FrameReader
from tests.fedcore.aggregation.test_fold_clusters import distance
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

NAMES = ("attic", "barn", "cellar", "den")


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    return {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 16 + 4 * seed))))
        for seed, name in enumerate(NAMES)
    }


def run(
    tiny: Path, folder: Path, sources: dict[str, Source], *parents: str, **groups: object
) -> tuple[list[RoundResult], dict[str, torch.Tensor]]:
    values = spec_of(tiny, rounds=1, evaluation={"every": 0, "initial": False}).to_dict()
    values["tree"] = {"parents": list(parents)}
    values |= groups
    results = simulate(parse_spec(values), sources, folder)
    reader = FrameReader(global_file(folder, 1))
    return results, {name: reader[name].clone() for name in reader}


TREES = {
    "two clusters": ("attic=hub", "barn=hub", "cellar=other", "den=other"),
    "three levels": ("attic=hub", "barn=hub", "hub=upper", "cellar=upper"),
    "a head that trains": ("barn=attic", "cellar=attic"),
    "a cluster of one": ("attic=hub", "barn=other", "cellar=other"),
    "auto": ("auto",),
}


def test_hierarchical_fedavg_equals_flat(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    flat, expected = run(tiny, tmp_path / "flat", sources)
    for name, parents in TREES.items():
        results, actual = run(tiny, tmp_path / name, sources, *parents)
        assert distance(actual, expected) <= 1e-6, name
        assert [one.bytes_up for one in results] == [one.bytes_up for one in flat]
        assert 0 < results[1].levels[0] < results[1].bytes_up
    assert flat[1].levels == ()


def test_level_bytes_are_the_bytes_of_links(
    tiny: Path, tmp_path: Path, sources: dict[str, Source]
) -> None:
    """hub folds attic and barn, upper folds that and cellar; den sends to the server."""
    results, _ = run(tiny, tmp_path / "run", sources, *TREES["three levels"])
    one = results[1].bytes_up / 4
    assert results[1].levels == pytest.approx((2 * one, 2 * one, 2 * one), rel=0.01)


def test_tree_folds_decoded_updates(tiny: Path, tmp_path: Path, sources: dict[str, Source]) -> None:
    wire = {"uplink": "int8"}
    _, expected = run(tiny, tmp_path / "flat", sources, wire=wire)
    _, actual = run(tiny, tmp_path / "tree", sources, *TREES["two clusters"], wire=wire)
    assert distance(actual, expected) <= 1e-6


def test_unknown_child_is_refused(tiny: Path, tmp_path: Path, sources: dict[str, Source]) -> None:
    with pytest.raises(SpecError, match="called 'garage'"):
        run(tiny, tmp_path, sources, "garage=hub", "attic=hub")
