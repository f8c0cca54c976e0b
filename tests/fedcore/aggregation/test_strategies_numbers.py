"""The numbers of each strategy: beside torch.optim on the same pseudo-gradient, or by hand.

The pseudo-gradient is the negative of the mean delta.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedcore.aggregation.server_optimizers import AdaptiveRates, server_yogi
from fedcore.aggregation.update_files import UpdatesRefused
from fedcore.aggregation.weighting import FedNova, QFedAvg, UpdateStats
from tests.fedcore.aggregation.strategies import SHAPES, A, Server, job, noise

RATE, B1, B2, TAU, DECAY = 0.02, 0.8, 0.95, 1e-2, 0.1
Weights = dict[str, torch.nn.Parameter]
Made = Callable[[Weights], torch.optim.Optimizer]


def follows(
    server: Server, made: Made, before_step: Callable[[torch.optim.Optimizer, int], None]
) -> None:
    """Five rounds of one device beside five steps of torch's optimizer."""
    weights = {n: torch.nn.Parameter(t.clone()) for n, t in server.weights.items()}
    optimizer = made(weights)
    for step in range(1, 6):
        deltas = noise(step)
        for n, parameter in weights.items():
            parameter.grad = -deltas[n]
        before_step(optimizer, step)
        optimizer.step()
        server.fold([(deltas, 1, 0)])
        for n in SHAPES:
            torch.testing.assert_close(server.weights[n], weights[n].data, rtol=1e-5, atol=1e-6)


def _as_it_is(optimizer: torch.optim.Optimizer, step: int) -> None:
    del optimizer, step


def _started(optimizer: torch.optim.Optimizer, weights: Weights) -> torch.optim.Optimizer:
    """Adam's second moment begins at tau^2 (Reddi et al.), torch's at 0."""
    for parameter in weights.values():
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.full_like(parameter, TAU**2),
        }
    return optimizer


def _uncorrected(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Choose torch's rate, epsilon and decay so that its correction of the bias is undone."""
    undo = math.sqrt(1 - B2**step)
    for group in optimizer.param_groups:
        group["lr"], group["eps"] = RATE * (1 - B1**step) / undo, TAU / undo
        if group["weight_decay"]:
            group["weight_decay"] = DECAY * RATE / group["lr"]


def test_fedavg_equals_sgd(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedavg", server_learning_rate=0.3))
    follows(server, lambda w: torch.optim.SGD(w.values(), lr=0.3), _as_it_is)


def test_fedavgm_equals_sgd_with_momentum(tmp_path: Path) -> None:
    server = Server(tmp_path, job("fedavgm", server_learning_rate=0.3, beta1=0.7))
    follows(server, lambda w: torch.optim.SGD(w.values(), lr=0.3, momentum=0.7), _as_it_is)


def test_fedadam_equals_adam_without_bias_correction(tmp_path: Path) -> None:
    options = {"server_learning_rate": RATE, "beta1": B1, "beta2": B2, "tau": TAU}
    server = Server(tmp_path, job("fedadam", **options))
    adam = lambda w: _started(torch.optim.Adam(w.values(), betas=(B1, B2)), w)  # noqa: E731
    follows(server, adam, _uncorrected)


def test_fedadamw_equals_adamw_without_bias_correction(tmp_path: Path) -> None:
    options = {"server_learning_rate": RATE, "beta1": B1, "beta2": B2, "tau": TAU}
    server = Server(tmp_path, job("fedadamw", **options, server_weight_decay=DECAY))
    made = {"betas": (B1, B2), "weight_decay": DECAY}
    adamw = lambda w: _started(torch.optim.AdamW(w.values(), **made), w)  # noqa: E731
    follows(server, adamw, _uncorrected)


def test_fedadagrad_equals_adagrad(tmp_path: Path) -> None:
    """torch's has no first moment."""
    server = Server(tmp_path, job("fedadagrad", server_learning_rate=RATE, beta1=0.0, tau=TAU))
    made = {"lr": RATE, "initial_accumulator_value": TAU**2, "eps": TAU}
    follows(server, lambda w: torch.optim.Adagrad(w.values(), **made), _as_it_is)


def test_fedadagrad_has_the_first_moment_of_the_paper(tmp_path: Path) -> None:
    """Two rounds by hand: v 0.01, 1.01, 5.01; m 0.5, 1.25."""
    options = {"server_learning_rate": 1.0, "beta1": 0.5, "tau": 0.1}
    server = Server(tmp_path, job("fedadagrad", **options))
    for delta, m, v in ((1.0, 0.5, 1.01), (2.0, 1.25, 5.01)):
        step = server.step([({n: torch.full(s, delta) for n, s in SHAPES.items()}, 1, 0)])
        expected = torch.full(SHAPES[A], m / (math.sqrt(v) + 0.1))
        torch.testing.assert_close(step[A], expected)


def test_fedyogi_by_hand(tmp_path: Path) -> None:
    """v moves towards d^2 by at most (1 - b2) d^2, whichever is the greater of the two."""
    options = {"server_learning_rate": 1.0, "beta1": 0.5, "beta2": 0.75, "tau": 0.5}
    server = Server(tmp_path, job("fedyogi", **options))
    # v: 0.25 + 0.25 * 4 = 1.25;  1.25 - 0.25 * 1 = 1;  d^2 = v moves nothing.
    for delta, m, v in ((2.0, 1.0, 1.25), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)):
        step = server.step([({n: torch.full(s, delta) for n, s in SHAPES.items()}, 1, 0)])
        expected = torch.full(SHAPES[A], m / (math.sqrt(v) + 0.5))
        torch.testing.assert_close(step[A], expected)


@given(st.floats(0, 4, width=32), st.floats(-2, 2, width=32), st.floats(0, 0.99))
def test_yogi_second_moment_never_passes_the_square(v: float, delta: float, beta2: float) -> None:
    stage = server_yogi(AdaptiveRates(1.0, 0.9, beta2, 1e-3))
    moments = {"m": torch.zeros(1), "v": torch.tensor([v])}
    _, after = stage.run(torch.tensor([delta]), moments, torch.zeros(1))
    moved, bound = float(after["v"]) - v, (1 - beta2) * delta**2
    assert abs(moved) <= bound + 1e-6 and moved * (delta**2 - v) >= 0
    assert float(after["v"]) >= 0


def test_adamw_decay_alone_shrinks_weights(tmp_path: Path) -> None:
    options = {"server_learning_rate": 0.5, "server_weight_decay": 0.2}
    server = Server(tmp_path, job("fedadamw", **options))
    before = server.weights
    server.fold([({n: torch.zeros(s) for n, s in SHAPES.items()}, 1, 0)])
    for n in SHAPES:
        torch.testing.assert_close(server.weights[n], 0.9 * before[n])


def test_server_rate_is_not_its_logarithm(tmp_path: Path) -> None:
    """A public code feeds log10 of the rate: half the rate must be half the first step."""
    steps = []
    for rate in (0.2, 0.1):
        server = Server(tmp_path / str(rate), job("fedadam", server_learning_rate=rate))
        steps.append(server.step([(noise(1), 1, 0)])[A])
    assert torch.allclose(steps[0], 2 * steps[1], atol=1e-6)


def mean(shares: list[float], deltas: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    pairs = list(zip(shares, deltas, strict=True))
    return {n: sum((share * d[n] for share, d in pairs), torch.zeros(s)) for n, s in SHAPES.items()}


class TestFedNova:
    def test_by_hand(self, tmp_path: Path) -> None:
        """Shares 3/4 and 1/4, 2 and 10 steps: 4 steps in effect, so factors 2 and 2/5."""
        server = Server(tmp_path, job("fednova", server_learning_rate=0.5))
        reported = {0: {"steps": 2}, 1: {"steps": 10}}
        step = server.step([(noise(1), 30, 0), (noise(2), 10, 1)], reported)
        expected = mean([0.5 * 0.75 * 2, 0.5 * 0.25 * 0.4], [noise(1), noise(2)])
        for n in SHAPES:
            torch.testing.assert_close(step[n], expected[n], rtol=1e-5, atol=1e-5)

    @given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 1000)), min_size=1, max_size=8))
    def test_fednova_follows_the_mean_slope(self, reported: list[tuple[float, int]]) -> None:
        """Where each step moves everybody by one, the model moves by the mean number of steps."""
        total = math.fsum(weight for weight, _ in reported)
        stats = [UpdateStats(1.0, weight / total, steps) for weight, steps in reported]
        factors = FedNova().factors(stats)
        moved = sum(s.share * f * s.steps for s, f in zip(stats, factors, strict=True))
        assert moved == pytest.approx(sum(s.share * s.steps for s in stats))

    def test_update_without_steps_is_refused(self, tmp_path: Path) -> None:
        server = Server(tmp_path, job("fednova"))
        with pytest.raises(UpdatesRefused, match=r"slot 1: .*number of local steps") as error:
            server.fold([(noise(1), 1, 0), (noise(2), 1, 1)], {1: {"steps": 0}})
        assert set(error.value.reasons) == {(1, 0)}


def papers_step(
    deltas: list[dict[str, Tensor]], losses: list[float], q: float, smooth: float
) -> dict[str, Tensor]:
    """q-FedAvg's Algorithm 2 as it stands there: sum of F^q L d over the sum of the h."""
    squares = [sum(float(t.square().sum()) for t in d.values()) * smooth**2 for d in deltas]
    h = [
        q * f ** (q - 1) * square + smooth * f**q for f, square in zip(losses, squares, strict=True)
    ]
    return mean([f**q * smooth / sum(h) for f in losses], deltas)


class TestFairness:
    @pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 3.0])
    def test_qfedavg_equals_the_algorithm_of_the_paper(self, q: float, tmp_path: Path) -> None:
        """Whatever the numbers of examples."""
        server = Server(tmp_path, job("qfedavg", fairness_q=q))
        reported = {0: {"loss_before": 0.5}, 1: {"loss_before": 3.0}}
        step = server.step([(noise(1), 30, 0), (noise(2), 10, 1)], reported)
        smooth = 1 / server.spec.train.learning_rate
        expected = papers_step([noise(1), noise(2)], [0.5, 3.0], q, smooth)
        for n in SHAPES:
            torch.testing.assert_close(step[n], expected[n], rtol=1e-4, atol=1e-6)

    def test_by_hand(self) -> None:
        """L 2, q 1, losses 1 and 3, norms 1 and 2: h is 4 + 2 and 16 + 6, shares 2/28 and 6/28."""
        stats = [UpdateStats(1.0, 0.5, 1, 1.0), UpdateStats(2.0, 0.5, 1, 3.0)]
        assert QFedAvg(1.0, 0.5).factors(stats) == pytest.approx([4 / 28, 12 / 28])

    def test_qfedavg_with_q_0_is_the_plain_mean(self, tmp_path: Path) -> None:
        server = Server(tmp_path, job("qfedavg", fairness_q=0.0))
        step = server.step([(noise(1), 30, 0), (noise(2), 10, 1)], {1: {"loss_before": 9.0}})
        expected = mean([0.5, 0.5], [noise(1), noise(2)])
        for n in SHAPES:
            torch.testing.assert_close(step[n], expected[n], rtol=1e-5, atol=1e-6)

    @given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6, unique=True))
    def test_higher_loss_gets_higher_weight(self, losses: list[float]) -> None:
        stats = [UpdateStats(1.0, 1 / len(losses), 1, loss) for loss in losses]
        factors = QFedAvg(2.0, 0.1).factors(stats)
        by_loss = [factor for _, factor in sorted(zip(losses, factors, strict=True))]
        assert by_loss == sorted(by_loss)

    @settings(max_examples=50)
    @given(st.floats(0, 100), st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=5))
    def test_extreme_losses_do_not_overflow(self, q: float, losses: list[float]) -> None:
        stats = [UpdateStats(1e6, 1 / len(losses), 1, loss) for loss in losses]
        factors = QFedAvg(q, 1e-5).factors(stats)
        assert all(0 <= factor <= len(losses) * (1 + 1e-9) for factor in factors)

    @pytest.mark.parametrize("loss", [None, 0.0, -1.0, math.nan, math.inf])
    def test_update_without_loss_is_refused(self, loss: float | None, tmp_path: Path) -> None:
        server = Server(tmp_path, job("qfedavg"))
        with pytest.raises(UpdatesRefused, match=r"slot 1: .*loss before training") as error:
            server.fold([(noise(1), 1, 0), (noise(2), 1, 1)], {1: {"loss_before": loss}})
        assert set(error.value.reasons) == {(1, 0)}
