"""Edgewise's own forward pass of T5 against that of transformers, and what dropout does in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from fedcore.architecture.sizes import architecture_of
from fedcore.compute.determinism import deterministic_algorithms
from fedcore.model.adapters import attach
from fedcore.model.fast.dropout import DropoutStream, scale
from fedcore.model.fast.forward import ForwardSettings, Rows, decode, loss_sum, supports
from fedcore.model.fast.linear import has_onednn, onednn
from fedcore.model.fast.loss import ROWS
from fedcore.model.fast.loss import cross_entropy as in_pieces
from fedcore.model.load import load_base
from fedcore.model.parameters import get_trainable, set_trainable, trainable_parameters
from fedcore.plan.cost.step_flops import full_cost, lora_cost
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.train.kernels import KERNELS, KernelContext, kernels_of, micro_batches
from fedcore.train.tokenization import TokenizedExample

CPU = torch.device("cpu")
TARGETS = ("q", "v", "wi_0", "wo")
LENGTHS = ((7, 5), (12, 2), (3, 6))


@pytest.fixture(scope="module")
def examples() -> list[TokenizedExample]:
    rng = np.random.default_rng(0)
    draw = lambda n: rng.integers(3, 3000, n).astype(np.int32)  # noqa: E731
    return [TokenizedExample(draw(source), draw(target)) for source, target in LENGTHS]


def model_of(kind: str) -> Any:
    adapter = AdapterSpec(kind=kind, rank=4, dropout=0.0, targets=TARGETS)
    model = attach(load_base("nano", torch.float32), adapter, 3)
    if kind == "lora":  # B is zero at first; then A has no gradient
        generator = torch.Generator().manual_seed(1)
        start = get_trainable(model)
        set_trainable(
            model,
            {k: v + 0.02 * torch.randn(v.shape, generator=generator) for k, v in start.items()},
        )
    return model


def gradients(
    model: Any, examples: list[TokenizedExample], name: str, rate: float = 0.0, **changes: Any
) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    task = KernelContext(model.eval(), CPU, torch.float32, rate, False, 5)
    task = KernelContext(**{**task.__dict__, **changes})
    kernels = kernels_of(name, task)
    batch = kernels.load(examples)
    loss = kernels.loss(kernels.forward(batch, 0), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    grads = {k: p.grad.clone() for k, p in trainable_parameters(model) if p.grad is not None}
    return float(loss.detach()), grads


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_transformers(
    kind: str, checkpointing: bool, examples: list[TokenizedExample]
) -> None:
    model = model_of(kind)
    expected, plain = gradients(model, examples, "plain")
    loss, fast = gradients(model, examples, "fast", checkpointing=checkpointing)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert set(fast) == set(plain) and len(fast) > 10
    for name, gradient in plain.items():
        assert float((fast[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()) + 1e-6, name


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_executed_flops_equal_counted_flops(kind: str) -> None:
    """Within 1 % by torch's counter: no padding, no weight gradient of what is frozen."""
    lengths = ((60, 20), (90, 31))
    batch = [
        TokenizedExample(np.full(source, 7, np.int32), np.full(target, 9, np.int32))
        for source, target in lengths
    ]
    sizes = architecture_of("nano")
    assert sizes is not None
    cost = full_cost(sizes) if kind == "full" else lora_cost(sizes, 4, TARGETS)
    with (
        deterministic_algorithms(True),
        FlopCounterMode(display=False) as counter,
    ):  # it knows no oneDNN products
        gradients(model_of(kind), batch, "fast")
    assert counter.get_total_flops() == pytest.approx(cost.training.of(lengths), rel=0.01)


def test_bf16_is_as_accurate_as_autocast(examples: list[TokenizedExample]) -> None:
    model = model_of("full")
    expected, exact = gradients(model, examples, "plain")
    away: dict[str, float] = {}
    for kernels in ("plain", "fast"):
        loss, grads = gradients(model, examples, kernels, precision=torch.bfloat16)
        assert loss == pytest.approx(expected, rel=0.01)
        square = sum(float((grads[name] - exact[name]).square().sum()) for name in exact)
        away[kernels] = square**0.5
    assert away["fast"] < 1.3 * away["plain"]


def test_example_is_independent_of_its_batch(examples: list[TokenizedExample]) -> None:
    model = model_of("full")
    together, _ = gradients(model, examples, "fast")
    alone = [gradients(model, [example], "fast")[0] for example in examples]
    assert together == pytest.approx(sum(alone), rel=1e-5)


def test_dropout_depends_on_seed_not_checkpointing(
    examples: list[TokenizedExample],
) -> None:
    model = model_of("full")
    loss, grads = gradients(model, examples, "fast", rate=0.2)
    again, same = gradients(model, examples, "fast", rate=0.2, checkpointing=True)
    assert loss == again and all(torch.equal(grads[name], same[name]) for name in grads)
    other, _ = gradients(model, examples, "fast", rate=0.2, seed=6)
    assert other != loss


def test_gradient_under_dropout_matches_the_loss(examples: list[TokenizedExample]) -> None:
    """Against the difference of two losses along the gradient, with the same values dropped."""
    model = model_of("full")
    _, grads = gradients(model, examples, "fast", rate=0.1)
    names = dict(trainable_parameters(model))
    for name in (
        "encoder.block.0.layer.0.SelfAttention.v.weight",
        "decoder.block.2.layer.1.EncDecAttention.q.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi_0.weight",
        "decoder.block.0.layer.0.layer_norm.weight",
    ):
        weight, gradient = names[name], grads[name]
        length = float(gradient.norm())
        step = gradient * (0.05 / length**2)  # changes the loss by about 0.05 each way
        losses = []
        for sign in (1, -2):
            with torch.no_grad():
                weight += sign * step
            losses.append(gradients(model, examples, "fast", rate=0.1)[0])
        with torch.no_grad():
            weight += step
        assert losses[0] - losses[1] == pytest.approx(0.1, rel=0.1), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_mean_and_rate(dtype: torch.dtype) -> None:
    x = torch.ones(400, 500, dtype=dtype, requires_grad=True)
    dropped = DropoutStream(0.1, 3).drop(x)
    dropped.sum().backward()  # type: ignore[no-untyped-call]
    nonzero = dropped != 0
    assert float(nonzero.float().mean()) == pytest.approx(0.9, abs=0.004)
    assert torch.equal(dropped[nonzero], torch.full_like(dropped[nonzero], scale(0.1)))
    assert x.grad is not None and torch.equal(x.grad != 0, nonzero)


def test_zero_dropout_draws_no_numbers() -> None:
    x = torch.randn(4, 4)
    assert DropoutStream(0.0, 1).drop(x) is x
    assert DropoutStream(0.1, 1).drop(x, 0.0) is x


def test_cross_entropy_in_pieces_equals_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2 * ROWS + 3, 16, generator=generator, requires_grad=True)
    head = torch.randn(50, 16, generator=generator, requires_grad=True)
    labels = torch.randint(0, 50, (len(hidden),), generator=generator)
    expected = torch.autograd.grad(
        3 * cross_entropy(hidden @ head.t(), labels, reduction="sum"), (hidden, head)
    )
    grads = torch.autograd.grad(3 * in_pieces(hidden, head, labels), (hidden, head))
    for one, other in zip(expected, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")
def test_onednn_products_equal_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 24, generator=generator, requires_grad=True)
    weight = torch.randn(16, 24, generator=generator, requires_grad=True)
    grad = torch.randn(20, 16, generator=generator)
    expected = torch.autograd.grad(x @ weight.t(), (x, weight), grad)
    grads = torch.autograd.grad(onednn(x, weight), (x, weight), grad)
    for one, other in zip(expected, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_unsupported_model_uses_plain_kernels() -> None:
    model = model_of("full")
    assert supports(model)
    model.config.dense_act_fn = "silu"
    task = KernelContext(model, CPU, torch.float32, 0.0, False, 0)
    assert not supports(model)
    assert isinstance(kernels_of("fast", task), KERNELS["plain"])


def test_decoder_states_have_one_row_per_token(
    examples: list[TokenizedExample],
) -> None:
    model = model_of("full")
    source = Rows(torch.arange(3, 10), (4, 3))
    shifted = Rows(torch.tensor([0, 5, 0]), (2, 1))
    settings = ForwardSettings(torch.float32)
    hidden = decode(model, source, shifted, settings, DropoutStream(0.0))
    assert hidden.shape == (3, model.config.d_model)
    assert loss_sum(model, hidden, torch.tensor([5, 1, 1]), settings).shape == ()


def test_micro_batches_limit_examples_and_tokens() -> None:
    rows, lengths = [4, 7, 1, 0], [(10, 2), (10, 2), (30, 3), (1, 1)]
    assert micro_batches(rows, lengths, 0, 0) == [rows]
    assert micro_batches(rows, lengths, 3, 0) == [[4, 7, 1], [0]]
    assert micro_batches(rows, lengths, 0, 24) == [[4, 7], [1], [0]]
    assert micro_batches(rows, lengths, 1, 1000) == [[4], [7], [1], [0]]
    assert micro_batches(rows, lengths, 0, 5) == [[4], [7], [1], [0]]  # an example is never divided
