"""One table of laws for every strategy (methods.md, section 6), and what is special to some."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedcore.errors import FoldError
from fedcore.spec import JobSpec
from fedcore.spec_strategy import FOLDS, STRATEGIES, StrategySpec
from fedcore.strategy.fold import FoldReport, UpdateFile, fold_files
from fedcore.strategy.lowrank import aggregation_error
from fedcore.strategy.table import FOLDS as FOLD_TABLE
from fedcore.strategy.table import STRATEGIES as TABLE
from fedcore.strategy.table import build
from fedcore.wire.frame import FrameReader, write_frame

A, B = "m.q.lora_A.weight", "m.q.lora_B.weight"
SHAPES = {A: (2, 6), B: (5, 2)}
AVERAGING = ("fedavg", "fedprox")


def job(name: str, **options: object) -> JobSpec:
    return JobSpec(strategy=replace(StrategySpec(), name=name, **options))


def noise(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: scale * torch.randn(s, generator=generator) for n, s in SHAPES.items()}


class Server:
    """A folder with global weights, folding what a test hands it."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.folder, self.spec, self.round, self.state = folder, spec, 0, None
        folder.mkdir(parents=True, exist_ok=True)
        write_frame(self.path, noise(0), {"kind": "global", "fingerprint": "abc"})

    @property
    def path(self) -> Path:
        return self.folder / f"global-{self.round}"

    @property
    def weights(self) -> dict[str, Tensor]:
        reader = FrameReader(self.path)
        return {name: reader[name].clone() for name in reader}

    def fold(self, updates: list[tuple[dict[str, Tensor], float, int]]) -> FoldReport:
        files = []
        for tensors, weight, slot in updates:
            path = self.folder / f"update-{slot}"
            write_frame(path, tensors, {"kind": "update"})
            files.append(UpdateFile(path, weight, slot))
        after, state = self.folder / f"global-{self.round + 1}", self.folder / f"s-{self.round + 1}"
        report = fold_files(self.spec, self.path, files, self.state, after, state)
        self.round, self.state = self.round + 1, state
        return report


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(STRATEGIES)
    assert set(FOLD_TABLE) == set(FOLDS)


@pytest.mark.parametrize("name", STRATEGIES)
class TestLaws:
    def test_zero_deltas_change_nothing(self, name: str, tmp_path: Path) -> None:
        server = Server(tmp_path, job(name))
        before = server.weights
        zero = {n: torch.zeros(s) for n, s in SHAPES.items()}
        for _ in range(2):
            server.fold([(zero, 3, 0), (zero, 1, 1)])
        assert all(torch.equal(before[n], server.weights[n]) for n in SHAPES)

    def test_the_order_of_arrival_never_matters(self, name: str, tmp_path: Path) -> None:
        updates = [(noise(i + 1), i + 1.0, i) for i in range(4)]
        one, two = Server(tmp_path / "1", job(name)), Server(tmp_path / "2", job(name))
        assert one.fold(updates).global_frame == two.fold(updates[::-1]).global_frame

    def test_relabelled_slots_differ_by_rounding_only(self, name: str, tmp_path: Path) -> None:
        one, two = Server(tmp_path / "1", job(name)), Server(tmp_path / "2", job(name))
        one.fold([(noise(i + 1), i + 1.0, i) for i in range(4)])
        two.fold([(noise(i + 1), i + 1.0, 9 - i) for i in range(4)])
        for n in SHAPES:
            assert torch.allclose(one.weights[n], two.weights[n], rtol=1e-5, atol=1e-6)

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

    def test_a_device_of_weight_zero_has_no_say(self, name: str, tmp_path: Path) -> None:
        one, two = Server(tmp_path / "1", job(name)), Server(tmp_path / "2", job(name))
        one.fold([(noise(1), 2, 0), (noise(2), 0, 1)])
        two.fold([(noise(1), 2, 0)])
        assert all(torch.equal(one.weights[n], two.weights[n]) for n in SHAPES)

    def test_the_report_knows_norms_and_weights(self, name: str, tmp_path: Path) -> None:
        report = Server(tmp_path, job(name)).fold([(noise(1), 3, 4), (noise(2), 1, 2)])
        assert report.weights == {2: 0.25, 4: 0.75}
        wanted = math.sqrt(sum(float(t.square().sum()) for t in noise(1).values()))
        assert report.update_norms[4] == pytest.approx(wanted)
        assert report.bytes_read == 2 * (tmp_path / "update-2").stat().st_size

    def test_clipping_bounds_what_one_device_can_do(self, name: str, tmp_path: Path) -> None:
        spec = job(name, clip_update_norm=1.0)
        one, two = Server(tmp_path / "1", spec), Server(tmp_path / "2", spec)
        long = noise(1, 1000.0)
        norm = one.fold([(long, 1, 0)]).update_norms[0]
        two.fold([({n: t / norm for n, t in long.items()}, 1, 0)])
        for n in SHAPES:
            assert torch.allclose(one.weights[n], two.weights[n], atol=1e-5)

    def test_frames_that_do_not_fit_are_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(FoldError, match="the update of slot 1: wrong names: 1 missing"):
            Server(tmp_path, job(name)).fold([(noise(1), 1, 0), ({A: torch.ones(2, 6)}, 1, 1)])


@pytest.mark.parametrize("name", AVERAGING)
def test_one_device_alone_is_local_training(name: str, tmp_path: Path) -> None:
    server = Server(tmp_path, job(name))
    before, delta = server.weights, noise(1)
    server.fold([(delta, 5, 0)])
    assert all(torch.equal(server.weights[n], before[n] + delta[n]) for n in SHAPES)


@pytest.mark.parametrize("name", AVERAGING)
def test_the_mean_is_weighted_by_examples(name: str, tmp_path: Path) -> None:
    server = Server(tmp_path, job(name, server_learning_rate=0.5))
    before = server.weights
    server.fold([(noise(1), 30, 0), (noise(2), 10, 1)])
    for n in SHAPES:
        wanted = before[n] + 0.5 * (0.75 * noise(1)[n] + 0.25 * noise(2)[n])
        assert torch.allclose(server.weights[n], wanted, atol=1e-6)


def test_fedadam_agrees_with_torch_stepping_the_pseudo_gradient(tmp_path: Path) -> None:
    """torch's Adam corrects the bias and starts v at 0; rate, eps and state are set to undo both.

    Reddi et al. 2020: v starts at tau^2 and nothing is corrected. The pseudo-gradient is -delta.
    """
    rate, b1, b2, tau = 0.02, 0.8, 0.95, 1e-2
    spec = job("fedadam", server_learning_rate=rate, beta1=b1, beta2=b2, tau=tau)
    server = Server(tmp_path, spec)
    weights = {n: torch.nn.Parameter(t.clone()) for n, t in server.weights.items()}
    optimizer = torch.optim.Adam(weights.values(), betas=(b1, b2))
    for parameter in weights.values():
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.full_like(parameter, tau**2),
        }
    for step in range(1, 6):
        deltas = noise(step)
        for n, parameter in weights.items():
            parameter.grad = -deltas[n]
        undo = math.sqrt(1 - b2**step)
        for group in optimizer.param_groups:
            group["lr"], group["eps"] = rate * (1 - b1**step) / undo, tau / undo
        optimizer.step()
        server.fold([(deltas, 1, 0)])
        for n in SHAPES:
            assert torch.allclose(server.weights[n], weights[n], rtol=1e-5, atol=1e-6)


def test_the_rate_is_the_rate(tmp_path: Path) -> None:
    """A public code feeds log10 of the rate: half the rate must be half the first step."""
    steps = []
    for rate in (0.2, 0.1):
        server = Server(tmp_path / str(rate), job("fedadam", server_learning_rate=rate))
        before = server.weights[A]
        server.fold([(noise(1), 1, 0)])
        steps.append(server.weights[A] - before)
    assert torch.allclose(steps[0], 2 * steps[1], atol=1e-6)


def test_state_of_another_strategy_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedadam"))
    server.fold([(noise(1), 1, 0)])
    server.spec = job("fedavg")
    with pytest.raises(FoldError, match="the server state is of fedadam"):
        server.fold([(noise(1), 1, 0)])


def test_the_global_frame_keeps_its_metadata(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedavg"))
    server.fold([(noise(1), 1, 0)])
    found = FrameReader(server.path).meta
    assert (found["kind"], found["fingerprint"]) == ("global", "abc")


def test_fedprox_asks_its_devices_for_the_proximal_term() -> None:
    assert build(job("fedprox")).objective == "proximal"
    assert build(job("fedavg")).objective == build(job("fedadam")).objective == "plain"


def test_equal_adapters_have_no_aggregation_error(tmp_path: Path) -> None:
    report = Server(tmp_path, job("fedavg")).fold([(noise(1), 1, i) for i in range(3)])
    assert report.aggregation_error == pytest.approx(0, abs=1e-7)


def test_aggregation_error_is_that_of_the_dense_products(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedavg"))
    before, deltas, shares = server.weights, [noise(1), noise(2)], [0.75, 0.25]
    report = server.fold([(deltas[0], 3, 0), (deltas[1], 1, 1)])
    pairs = [(before[B] + d[B], before[A] + d[A]) for d in deltas]
    mean = sum(p * b @ a for p, (b, a) in zip(shares, pairs, strict=True))
    served = server.weights[B] @ server.weights[A]
    wanted = (served - mean).norm() / mean.norm()
    assert report.aggregation_error == pytest.approx(float(wanted), rel=1e-4)


def test_aggregation_error_where_products_vanish() -> None:
    zero = {A: torch.zeros(2, 6), B: torch.zeros(5, 2)}
    assert aggregation_error(zero, [(1.0, zero.__getitem__)]) == 0.0
    plus, minus = noise(1), noise(1) | {A: -noise(1)[A]}
    halves = [(0.5, plus.__getitem__), (0.5, minus.__getitem__)]
    assert aggregation_error(zero, halves) == pytest.approx(0.0)


def test_full_fine_tuning_has_no_aggregation_error(tmp_path: Path) -> None:
    spec = job("fedavg")
    server = Server(tmp_path, replace(spec, adapter=replace(spec.adapter, kind="full")))
    assert server.fold([(noise(1), 1, 0)]).aggregation_error is None
