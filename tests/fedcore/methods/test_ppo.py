"""PFIT's parts of PPO against known answers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcore.methods.pfit.ppo import BASELINES, clipped_surrogate, kl_penalty

LOGS = st.floats(-8, -0.01)


@given(now=LOGS, advantage=st.floats(-3, 3))
def test_surrogate_at_ratio_1_is_policy_gradient(now: float, advantage: float) -> None:
    """d/dlogp of min(r A, clip(r) A) at r = 1 is A, as that of A logp."""
    live = torch.tensor([[now]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[advantage]], dtype=torch.float64)
    clipped_surrogate(live, live.detach(), weight, 0.2).sum().backward()
    assert live.grad is not None
    assert float(live.grad) == pytest.approx(advantage)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.5, 1.0, 0.0), (1.5, -1.0, -1.5), (0.5, -1.0, 0.0), (0.5, 1.0, 0.5), (1.1, 1.0, 1.1)],
)
def test_surrogate_is_flat_beyond_the_clip(ratio: float, advantage: float, slope: float) -> None:
    live = torch.log(torch.tensor([[ratio]])).requires_grad_()
    clipped_surrogate(live, torch.zeros(1, 1), torch.tensor([[advantage]]), 0.2).sum().backward()
    assert live.grad is not None
    assert float(live.grad) == pytest.approx(slope)


@given(now=LOGS, anchor=LOGS)
def test_kl_penalty_is_non_negative_and_0_at_equality(now: float, anchor: float) -> None:
    live = torch.tensor(now, dtype=torch.float64, requires_grad=True)
    assert float(kl_penalty(live, torch.tensor(anchor, dtype=torch.float64)).detach()) >= 0
    same = kl_penalty(live, live.detach())
    same.backward()
    assert float(same.detach()) == 0 and live.grad is not None and float(live.grad) == 0


@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(-4, 4)), min_size=2, max_size=6))
def test_kl_penalty_estimates_the_divergence(
    logits: list[tuple[float, float]],
) -> None:
    """KL(policy, received), by hand; the other way round it would be KL(received, policy)."""
    now, anchor = torch.tensor(logits, dtype=torch.float64).log_softmax(0).T
    actual = (now.exp() * kl_penalty(now, anchor)).sum()
    assert float(actual) == pytest.approx(float((now.exp() * (now - anchor)).sum()), abs=1e-9)


def test_group_baseline_uses_the_group_mean() -> None:
    """Rewards 0 and 1: mean 1/2, deviation 1/2; equal rewards have no advantage."""
    actual = BASELINES["group"]()(torch.tensor([[0.0, 1.0], [0.3, 0.3]], dtype=torch.float64))
    assert actual.flatten().tolist() == pytest.approx([-1, 1, 0, 0], abs=1e-3)


def test_value_baseline_is_mean_of_earlier_samples() -> None:
    baseline = BASELINES["value"]()
    first = baseline(torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    assert first.flatten().tolist() == pytest.approx([-1, 1], abs=1e-3)
    later = baseline(torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    deviation = (3 / 4 - (3 / 4) ** 2) ** 0.5
    assert later.flatten().tolist() == pytest.approx([0.5 / deviation] * 2, abs=1e-3)
