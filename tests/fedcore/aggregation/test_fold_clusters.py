"""Folding over any tree is folding at once: the law of hierarchical averaging, on real frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.aggregation.fold_task import NextFiles, ServerFiles
from fedcore.aggregation.hierarchical import fold_cluster
from fedcore.aggregation.next_model import fold_files
from fedcore.aggregation.update_files import UpdateFile, UpdatesRefused
from fedcore.errors import FoldError
from fedcore.formats.codec_chain import parse
from fedcore.spec.job import JobSpec
from fedcore.spec.options.strategy import STRATEGIES
from fedcore.wire.frame import FrameReader, check_frame, write_frame
from fedcore.wire.update import Encoding, write_update
from tests.fedcore.aggregation.test_fold import noise, spec
from tests.fedcore.trees import NAMES, forests

SHAPES = {"a.weight": (30, 40), "b.bias": (7,)}
META = {"kind": "update", "job": "j"}
WEIGHTS = st.lists(st.integers(1, 500), min_size=len(NAMES), max_size=len(NAMES))


def update(folder: Path, slot: int, weight: float, seed: int = 0) -> UpdateFile:
    path = folder / f"update-{slot}"
    write_frame(path, noise(100 * seed + slot + 1, shapes=SHAPES), META)
    return UpdateFile(path, weight, slot)


def hierarchical(
    job: JobSpec, folder: Path, parents: Mapping[str, str], updates: Mapping[str, UpdateFile]
) -> list[UpdateFile]:
    """Updates that reach the server: a device with children folds theirs and its own, if any."""

    def sent(name: str) -> UpdateFile | None:
        local = [updates[name]] if name in updates else []
        below = [file for child in parents if parents[child] == name if (file := sent(child))]
        if len(local) + len(below) < 2:
            return next(iter(local + below), None)
        out = folder / f"cluster-{name}"
        fold_cluster(job, SHAPES, [*below, *local], META, out)
        return UpdateFile(out, sum(item.weight for item in (*local, *below)), NAMES.index(name))

    return [file for name in NAMES if name not in parents if (file := sent(name))]


def served(job: JobSpec, folder: Path, updates: Sequence[UpdateFile]) -> dict[str, torch.Tensor]:
    before = ServerFiles(folder / "global", None)
    fold_files(job, before, updates, NextFiles(folder / "after", folder / "state"))
    reader = FrameReader(folder / "after")
    return {name: reader[name].clone() for name in reader}


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest number."""
    return max(
        float((one[name] - other[name]).abs().max() / other[name].abs().max()) for name in other
    )


@settings(max_examples=60, deadline=None)
@given(forests(), WEIGHTS, st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 9))
def test_any_tree_equals_the_flat_fold(
    parents: dict[str, str], weights: list[int], training: set[str], seed: int
) -> None:
    """Whoever trains: leaves, heads that train too, and clusters in which nobody does."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_frame(folder / "global", noise(0, shapes=SHAPES), {"kind": "global"})
        updates = {
            name: update(folder, slot, weights[slot], seed)
            for slot, name in enumerate(NAMES)
            if name in training
        }
        flat = served(spec(), folder, list(updates.values()))
        top = hierarchical(spec(), folder, parents, updates)
        assert sum(item.weight for item in top) == sum(item.weight for item in updates.values())
        assert distance(served(spec(), folder, top), flat) <= 1e-6


@pytest.mark.parametrize("chain", ["fp32", "bf16", "int8", "top_k(0.5)+int4+zstd"])
def test_cluster_mean_under_any_codec(tmp_path: Path, chain: str) -> None:
    write_frame(tmp_path / "global", noise(0, shapes=SHAPES), {"kind": "global"})
    files = []
    for slot in range(4):
        path = tmp_path / f"update-{slot}"
        write_update(path, noise(slot + 1, shapes=SHAPES), META, Encoding(parse(chain), slot))
        files.append(UpdateFile(path, slot + 1.0, slot))
    flat = served(spec(), tmp_path, files)
    fold_cluster(spec(), SHAPES, files[:3], META, tmp_path / "cluster")
    check_frame(tmp_path / "cluster", SHAPES, META, 10**6)
    top = [UpdateFile(tmp_path / "cluster", 6.0, 9), files[3]]
    assert distance(served(spec(), tmp_path, top), flat) <= 1e-6


def test_clipping_in_cluster_equals_clipping_at_server(tmp_path: Path) -> None:
    """A mean of clipped updates is no longer than the limit, so the second clip changes nothing."""
    job = spec(clip_update_norm=3.0)
    write_frame(tmp_path / "global", noise(0, shapes=SHAPES), {"kind": "global"})
    updates = {name: update(tmp_path, slot, slot + 1) for slot, name in enumerate("abcd")}
    parents = {"b": "a", "c": "b", "d": "b"}
    flat = served(job, tmp_path, list(updates.values()))
    top = hierarchical(job, tmp_path, parents, updates)
    assert len(top) == 1
    assert distance(served(job, tmp_path, top), flat) <= 1e-6
    assert distance(served(spec(), tmp_path, list(updates.values())), flat) > 1e-3


@pytest.mark.parametrize("name", [str(k) for k, row in STRATEGIES.items() if not row.reweights])
def test_server_optimizers_get_the_flat_mean(tmp_path: Path, name: str) -> None:
    job = replace(spec(name=name), train=replace(spec().train, local_steps=4))
    write_frame(tmp_path / "global", noise(0, shapes=SHAPES), {"kind": "global"})
    updates = {name: update(tmp_path, slot, slot + 1) for slot, name in enumerate("abcd")}
    flat = served(job, tmp_path, list(updates.values()))
    top = hierarchical(job, tmp_path, {"b": "a", "c": "a"}, updates)
    assert len(top) == 2
    assert distance(served(job, tmp_path, top), flat) <= 1e-6


def test_cluster_bits_ignore_order_and_threads(tmp_path: Path) -> None:
    updates = [update(tmp_path, slot, slot + 1) for slot in range(5)]
    hashes = {
        fold_cluster(spec(), SHAPES, order, META, tmp_path / "out", threads).sha256
        for order in (updates, updates[::-1], updates[2:] + updates[:2])
        for threads in (1, 3)
    }
    assert len(hashes) == 1


def test_refused_cluster_update_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FoldError, match="no update arrived"):
        fold_cluster(spec(), SHAPES, [], META, tmp_path / "out")
    broken = noise(1, shapes=SHAPES)
    broken["b.bias"][3] = float("nan")
    write_frame(tmp_path / "bad", broken, META)
    good = update(tmp_path, 0, 1)
    with pytest.raises(UpdatesRefused, match=r"slot 4: tensor 'b.bias' holds NaN"):
        bad = replace(good, path=tmp_path / "bad", slot=4)
        fold_cluster(spec(), SHAPES, [good, bad], META, tmp_path / "out")
    assert not (tmp_path / "out").exists()
