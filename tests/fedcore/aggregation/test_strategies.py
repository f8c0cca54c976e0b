"""One table of laws for every strategy (methods.md, section 6), and what is special to some."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedcore.aggregation.flat_inputs import Shard
from fedcore.aggregation.fold_task import NextFiles, ServerFiles
from fedcore.aggregation.lowrank.averaging_error import aggregation_error
from fedcore.aggregation.next_model import fold_files
from fedcore.aggregation.sharding import (
    FoldedShards,
    ShardFile,
    fold_shard,
    join_shards,
    shard_factors,
    spans,
)
from fedcore.aggregation.strategies import FOLDS as FOLD_TABLE
from fedcore.aggregation.strategies import STRATEGIES as TABLE
from fedcore.aggregation.strategies import build
from fedcore.errors import FoldError
from fedcore.methods.objectives import OBJECTIVES
from fedcore.spec.options.strategy import STRATEGIES, FoldKind, StrategyKind
from fedcore.wire.frame import FrameReader
from tests.fedcore.aggregation.strategies import SHAPES, A, B, Server, job, noise, zeros

# Those whose first step is the mean weighted by examples where all devices take equal steps.
AVERAGING = ("fedavg", "fedprox", "fedavgm", "fednova", "scaffold")


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(StrategyKind)
    assert {recipe.objective for recipe in TABLE.values()} == set(OBJECTIVES)
    assert set(FOLD_TABLE) == set(FoldKind)


@pytest.mark.parametrize("name", list(map(str, StrategyKind)))
class TestLaws:
    def test_zero_deltas_change_nothing(self, name: str, tmp_path: Path) -> None:
        server = Server(tmp_path, job(name, server_weight_decay=0.0))
        before = server.weights
        for _ in range(2):
            server.fold([(zeros(), 3, 0), (zeros(), 1, 1)])
        assert all(torch.equal(before[n], server.weights[n]) for n in SHAPES)

    def test_strategy_bits_ignore_arrival_order(self, name: str, tmp_path: Path) -> None:
        updates = [(noise(i + 1), i + 1.0, i) for i in range(4)]
        one, two = Server(tmp_path / "1", job(name)), Server(tmp_path / "2", job(name))
        assert one.fold(updates).global_frame == two.fold(updates[::-1]).global_frame

    def test_relabelled_slots_differ_by_rounding_only(self, name: str, tmp_path: Path) -> None:
        one, two = Server(tmp_path / "1", job(name)), Server(tmp_path / "2", job(name))
        one.fold([(noise(i + 1), i + 1.0, i) for i in range(4)])
        two.fold([(noise(i + 1), i + 1.0, 9 - i) for i in range(4)])
        for n in SHAPES:
            assert torch.allclose(one.weights[n], two.weights[n], rtol=1e-5, atol=1e-5)

    def test_state_survives_bit_for_bit(self, name: str, tmp_path: Path) -> None:
        """Folding on from the saved files is what a server without a restart does."""
        rounds = [[(noise(10 * r + i), 1.0 + i, i) for i in range(3)] for r in range(3)]
        server = Server(tmp_path / "1", job(name))
        frames = [server.fold(updates) for updates in rounds]
        again = Server(tmp_path / "2", job(name))
        again.fold(rounds[0])
        moved = again.state.rename(tmp_path / "moved-state")
        again.state = moved
        assert again.fold(rounds[1]).state_frame == frames[1].state_frame
        assert again.fold(rounds[2]).global_frame == frames[2].global_frame
        assert FrameReader(again.state).meta["rounds"] == "3"

    def test_an_empty_round_is_an_error(self, name: str, tmp_path: Path) -> None:
        server = Server(tmp_path, job(name))
        with pytest.raises(FoldError, match="no update arrived"):
            server.fold([])
        with pytest.raises(FoldError, match="weight zero"):
            server.fold([(noise(1), 0, 0), (noise(2), 0, 1)])
        with pytest.raises(FoldError, match="negative or not finite"):
            server.fold([(noise(1), -1, 0), (noise(2), 3, 1)])
        assert not (tmp_path / "global-1").exists()

    def test_zero_weight_device_changes_nothing(self, name: str, tmp_path: Path) -> None:
        one, two = Server(tmp_path / "1", job(name)), Server(tmp_path / "2", job(name))
        one.fold([(noise(1), 2, 0), (noise(2), 0, 1)])
        two.fold([(noise(1), 2, 0)])
        assert all(torch.equal(one.weights[n], two.weights[n]) for n in SHAPES)

    def test_zero_weight_device_needs_no_stats(self, name: str, tmp_path: Path) -> None:
        silent = {1: {"steps": 0, "loss_before": None}}
        one, two = Server(tmp_path / "1", job(name)), Server(tmp_path / "2", job(name))
        one.fold([(noise(1), 2, 0), (noise(2), 0, 1)], silent)
        two.fold([(noise(1), 2, 0)])
        assert all(torch.equal(one.weights[n], two.weights[n]) for n in SHAPES)

    def test_refused_update_leaves_no_file(self, name: str, tmp_path: Path) -> None:
        server = Server(tmp_path, job(name))
        bad = noise(2) | {A: torch.full((2, 6), math.nan)}
        with pytest.raises(FoldError, match=r"slot 1: tensor .* holds NaN"):
            server.fold([(noise(1), 1, 0), (bad, 1, 1)])
        assert not (tmp_path / "global-1").exists() and not (tmp_path / "s-1").exists()

    def test_only_stateful_strategies_write_moments(self, name: str, tmp_path: Path) -> None:
        server = Server(tmp_path, job(name))
        server.fold([(noise(1), 1, 0)])
        assert server.state is not None
        has_moments = bool(FrameReader(server.state).header.tensors)
        assert has_moments == STRATEGIES[StrategyKind(name)].remembers_coordinates

    def test_shards_give_equal_bytes(self, name: str, tmp_path: Path) -> None:
        """The second round, so that there is a state; devices differ in all that they report."""
        server = Server(tmp_path, job(name, clip_update_norm=2.0))
        server.fold([(noise(7), 1, 0)])
        reported = {i: {"steps": i + 1, "loss_before": 1.0 + i} for i in range(3)}
        files = server.files([(noise(i + 1), i + 1.0, i) for i in range(3)], reported)
        whole = NextFiles(tmp_path / "whole", tmp_path / "whole-state")
        before = ServerFiles(server.path, server.state)
        expected = fold_files(server.spec, before, files, whole)
        factors = shard_factors(server.spec, before, files, tmp_path)
        (span,) = spans(sum(math.prod(shape) for shape in SHAPES.values()), 2)
        done = fold_shard(server.spec, before, files, Shard(span, factors), tmp_path / "shard")
        folded = FoldedShards([ShardFile(tmp_path / "shard", span, done.squares)], factors)
        after = NextFiles(tmp_path / "joined", tmp_path / "joined-state")
        joined = join_shards(server.spec, before, files, folded, after)
        assert joined.global_frame == expected.global_frame
        assert joined.state_frame == expected.state_frame

    def test_report_has_norms_and_weights(self, name: str, tmp_path: Path) -> None:
        report = Server(tmp_path, job(name)).fold([(noise(1), 3, 4), (noise(2), 1, 2)])
        assert report.weights == {2: 0.25, 4: 0.75}
        expected = math.sqrt(sum(float(t.square().sum()) for t in noise(1).values()))
        assert report.update_norms[4] == pytest.approx(expected)
        assert report.bytes_read == 2 * (tmp_path / "update-2").stat().st_size

    def test_clipping_bounds_one_device(self, name: str, tmp_path: Path) -> None:
        spec = job(name, clip_update_norm=1.0)
        one, two = Server(tmp_path / "1", spec), Server(tmp_path / "2", spec)
        long = noise(1, 1000.0)
        norm = one.fold([(long, 1, 0)]).update_norms[0]
        two.fold([({n: t / norm for n, t in long.items()}, 1, 0)])
        for n in SHAPES:
            assert torch.allclose(one.weights[n], two.weights[n], atol=1e-5)

    def test_mismatched_frame_is_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(FoldError, match="the update of slot 1: wrong names: 1 missing"):
            Server(tmp_path, job(name)).fold([(noise(1), 1, 0), ({A: torch.ones(2, 6)}, 1, 1)])


@pytest.mark.parametrize("name", AVERAGING)
def test_single_device_equals_local_training(name: str, tmp_path: Path) -> None:
    server = Server(tmp_path, job(name))
    before, delta = server.weights, noise(1)
    server.fold([(delta, 5, 0)], {0: {"steps": 7}})
    assert all(torch.equal(server.weights[n], before[n] + delta[n]) for n in SHAPES)


@pytest.mark.parametrize("name", AVERAGING)
def test_mean_is_weighted_by_examples(name: str, tmp_path: Path) -> None:
    server = Server(tmp_path, job(name, server_learning_rate=0.5))
    before = server.weights
    server.fold([(noise(1), 30, 0), (noise(2), 10, 1)])
    for n in SHAPES:
        expected = before[n] + 0.5 * (0.75 * noise(1)[n] + 0.25 * noise(2)[n])
        assert torch.allclose(server.weights[n], expected, atol=1e-6)


def test_state_of_another_strategy_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedadam"))
    server.fold([(noise(1), 1, 0)])
    server.spec = job("fedavg")
    with pytest.raises(FoldError, match="the server state belongs to fedadam"):
        server.fold([(noise(1), 1, 0)])


def test_global_frame_keeps_metadata(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedavg"))
    server.fold([(noise(1), 1, 0)])
    meta = FrameReader(server.path).meta
    assert (meta["kind"], meta["fingerprint"]) == ("global", "abc")


def test_fedprox_selects_the_proximal_objective() -> None:
    assert build(job("fedprox")).objective == "proximal"
    assert build(job("scaffold")).objective == "controlled"
    assert build(job("fedavg")).objective == build(job("fedadam")).objective == "plain"


def test_equal_adapters_have_no_aggregation_error(tmp_path: Path) -> None:
    report = Server(tmp_path, job("fedavg")).fold([(noise(1), 1, i) for i in range(3)])
    assert report.aggregation_error == pytest.approx(0, abs=1e-7)


def test_aggregation_error_equals_dense_error(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedavg"))
    before, deltas, shares = server.weights, [noise(1), noise(2)], [0.75, 0.25]
    report = server.fold([(deltas[0], 3, 0), (deltas[1], 1, 1)])
    pairs = [(before[B] + d[B], before[A] + d[A]) for d in deltas]
    mean = sum(p * b @ a for p, (b, a) in zip(shares, pairs, strict=True))
    served = server.weights[B] @ server.weights[A]
    expected = (served - mean).norm() / mean.norm()
    assert report.aggregation_error == pytest.approx(float(expected), rel=1e-4)


def test_aggregation_error_of_vanishing_products() -> None:
    zero = {A: torch.zeros(2, 6), B: torch.zeros(5, 2)}
    assert aggregation_error(zero, [(1.0, zero.__getitem__)]) == 0.0
    plus, minus = noise(1), noise(1) | {A: -noise(1)[A]}
    halves = [(0.5, plus.__getitem__), (0.5, minus.__getitem__)]
    assert aggregation_error(zero, halves) == pytest.approx(0.0)


def test_full_fine_tuning_has_no_aggregation_error(tmp_path: Path) -> None:
    spec = job("fedavg")
    server = Server(tmp_path, replace(spec, adapter=replace(spec.adapter, kind="full")))
    assert server.fold([(noise(1), 1, 0)]).aggregation_error is None
