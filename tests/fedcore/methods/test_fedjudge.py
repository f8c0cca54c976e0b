"""FedJudge's restraint, by its laws (arXiv 2309.08173): no mock, a tiny model and real passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedcore.methods.contract import Context
from fedcore.methods.fedjudge.method import importance, restraint
from fedcore.methods.registry import term_of
from fedcore.methods.session import Session, Update
from fedcore.model.initial import write_initial
from fedcore.model.parameters import trainable_parameters
from fedcore.spec.job import JobSpec
from fedcore.train.batches import SpecialTokens, collate, forward, token_losses
from fedcore.train.datasets import Source
from fedcore.train.loaded_model import LoadedModel
from fedcore.train.loop import TrainingTask
from fedcore.wire.frame import FrameReader, write_frame
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

CPU = torch.device("cpu")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(str(write_jsonl(tmp_path / "rows.jsonl", sentences(3, 24))))


def judged(tiny: Path, strength: float = 1.0, **changes: object) -> JobSpec:
    return spec_of(tiny, method={"name": "fedjudge", "restraint": strength}, **changes)


def served(spec: JobSpec, folder: Path) -> Path:
    """Global weights as they are after some rounds: no factor is zero."""
    write_initial(spec, folder / "first")
    frame = FrameReader(folder / "first")
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: frame[name] + 0.1 * torch.randn(frame[name].shape, generator=generator)
        for name in frame
    }
    write_frame(folder / "served", tensors, dict(frame.meta))
    return folder / "served"


def context_of(spec: JobSpec, folder: Path, source: Source, round_number: int = 2) -> Context:
    loaded = LoadedModel.of(spec, torch.float32)
    loaded.load_weights(spec, served(spec, folder), CPU)
    prepared = Session(folder / "cache", 1).prepare(spec, source)
    cost = loaded.cost(spec).training
    work = TrainingTask(loaded.model, prepared.train, spec.train, cost, 5, CPU, torch.float32)
    return Context(spec, work, round_number)


def live(context: Context) -> dict[str, Tensor]:
    return dict(trainable_parameters(context.work.model))


def moved(context: Context, by: float) -> dict[str, Tensor]:
    """The received weights plus ``by``; they require gradients."""
    return {
        name: (tensor.detach() + by).requires_grad_() for name, tensor in context.received().items()
    }


def test_restraint_is_zero_at_start_and_pulls_back(
    tiny: Path, tmp_path: Path, source: Source
) -> None:
    context = context_of(judged(tiny), tmp_path, source)
    term = restraint(context)
    here = moved(context, 0.0)
    at_start = term.penalty(here)
    assert at_start is not None and at_start.item() == 0.0
    at_start.backward()
    assert all(not tensor.grad.any() for tensor in here.values() if tensor.grad is not None)
    for by in (0.25, -0.25):
        away = moved(context, by)
        penalty = term.penalty(away)
        assert penalty is not None and penalty.item() > 0
        penalty.backward()
        weight = importance(context)
        assert sum(int(item.count_nonzero()) for item in weight.values()) > 0
        for name, tensor in away.items():  # its slope is J, against the movement
            assert tensor.grad is not None
            assert torch.allclose(tensor.grad, weight[name] * (1 if by > 0 else -1))


def test_restraint_anchor_is_a_copy(tiny: Path, tmp_path: Path, source: Source) -> None:
    context = context_of(judged(tiny), tmp_path, source)
    term = restraint(context)
    with torch.no_grad():
        for tensor in live(context).values():
            tensor.add_(1.0)
    actual = term.penalty(live(context))
    assert actual is not None and actual.item() > 0


def test_importance_is_mean_absolute_gradient(tiny: Path, tmp_path: Path, source: Source) -> None:
    """By torch's own loss through transformers' modules, batch after batch."""
    context = context_of(judged(tiny), tmp_path, source)
    before = {name: tensor.detach().clone() for name, tensor in live(context).items()}
    actual = importance(context)
    assert all(torch.equal(tensor, before[name]) for name, tensor in live(context).items())
    assert all(tensor.grad is None for tensor in live(context).values())
    examples, size = context.work.examples, context.spec.train.batch_size
    total = sum(target for _, target in examples.lengths)
    expected = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    context.work.model.eval()
    for start in range(0, len(examples), size):
        rows = [examples[row] for row in range(start, min(start + size, len(examples)))]
        batch = collate(rows, SpecialTokens.of(context.work.model.config), CPU)
        losses = token_losses(forward(context.work.model, batch, torch.float32), batch)
        grads = torch.autograd.grad(
            losses.sum() / batch.target_tokens, list(live(context).values())
        )
        for name, grad in zip(live(context), grads, strict=True):
            expected[name] += grad.abs() * batch.target_tokens / total
    for name, tensor in expected.items():
        assert torch.allclose(actual[name], tensor, rtol=1e-3, atol=1e-6), name


def train(spec: JobSpec, folder: Path, source: Source, number: int) -> Update:
    weights = served(spec, folder)
    return Session(folder / "cache", 1).train(spec, weights, source, number, 0)


def same(one: Update, two: Update) -> bool:
    return all(torch.equal(one.tensors[n], two.tensors[n]) for n in one.tensors | two.tensors)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fedjudge_zero_restraint_equals_plain_training(
    tiny: Path, tmp_path: Path, source: Source, optimizer: str
) -> None:
    options = {"train": {"optimizer": optimizer, "local_steps": 3, "learning_rate": 0.1}}
    plain = spec_of(tiny, **options)
    for number in (1, 2):
        expected = train(plain, tmp_path, source, number)
        assert same(expected, train(judged(tiny, 0.0, **options), tmp_path, source, number))
        strong = train(judged(tiny, 1.0, **options), tmp_path, source, number)
        assert same(expected, strong) is (number == 1)


def test_stronger_restraint_moves_less(tiny: Path, tmp_path: Path, source: Source) -> None:
    """Distance weighted by importance: J |w - w*|."""
    options = {"train": {"optimizer": "sgd", "local_steps": 12, "learning_rate": 0.3}}
    weight = importance(context_of(judged(tiny, **options), tmp_path, source))

    def distance(strength: float) -> float:
        tensors = train(judged(tiny, strength, **options), tmp_path, source, 2).tensors
        return sum(float((weight[name] * tensor.abs()).sum()) for name, tensor in tensors.items())

    actual = [distance(strength) for strength in (0.0, 0.3, 1.0, 3.0)]
    assert actual == sorted(actual, reverse=True)
    assert actual[2] < 0.7 * actual[0]


def test_proximal_term_is_half_mu_squared_distance(
    tiny: Path, tmp_path: Path, source: Source
) -> None:
    """By hand, 0.5 away from each of n weights: mu / 2 * n / 4, with the slope mu * 0.5."""
    spec = spec_of(tiny, strategy={"name": "fedprox", "proximal_mu": 0.4})
    context = context_of(spec, tmp_path, source)
    away = moved(context, 0.5)
    actual = term_of(context).penalty(away)
    assert actual is not None
    count = sum(tensor.numel() for tensor in away.values())
    assert actual.item() == pytest.approx(0.4 / 2 * count / 4, rel=1e-5)
    actual.backward()
    for tensor in away.values():
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, torch.full_like(tensor, 0.4 * 0.5))


def test_restraint_adds_to_the_proximal_term(tiny: Path, tmp_path: Path, source: Source) -> None:
    both = judged(tiny, 0.7, strategy={"name": "fedprox", "proximal_mu": 0.4})
    context = context_of(both, tmp_path, source)
    away = moved(context, 0.5)
    parts = [
        term_of(replace(context, spec=spec)).penalty(away)
        for spec in (
            both,
            judged(tiny, 0.7),
            spec_of(tiny, strategy={"name": "fedprox", "proximal_mu": 0.4}),
        )
    ]
    assert parts[0] is not None and parts[1] is not None and parts[2] is not None
    assert parts[0].item() == pytest.approx(parts[1].item() + parts[2].item(), rel=1e-6)
