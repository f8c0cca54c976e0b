"""Packed distributions by their laws: exact at k = vocabulary, never above the truth below it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from fedcore.errors import ModelError, WireError
from fedcore.formats.frame_header import read_header
from fedcore.formats.logits_header import ExpectedLogits, payload_bytes, place_bytes
from fedcore.methods.distillation.logits_frame import read_packed, write_packed
from fedcore.methods.distillation.packed_logits import PackedLogits, divergence, mean, pack

VOCABULARY = 40


def logits(seed: int, rows: int = 5, vocabulary: int = VOCABULARY, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, vocabulary, generator=generator)


def dense(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """By torch: T^2 KL(teacher || student), summed."""
    p, q = (log_softmax(item / temperature, -1) for item in (teacher, student))
    return temperature**2 * kl_div(q, p, reduction="sum", log_target=True)


SEEDS = st.integers(0, 10_000)
TEMPERATURES = st.floats(0.3, 8.0)
TOP_K = st.integers(1, VOCABULARY)
few = settings(max_examples=40, deadline=None)


@few
@given(SEEDS, SEEDS, TEMPERATURES)
def test_complete_divergence_equals_dense(one: int, two: int, temperature: float) -> None:
    teacher, student = logits(one), logits(two)
    actual = divergence(pack(teacher, VOCABULARY, temperature), student)
    assert actual.item() == pytest.approx(dense(teacher, student, temperature).item(), rel=1e-5,
                                         abs=1e-6 * temperature**2 * 5)  # fmt: skip
    exact = divergence(pack(teacher.double(), VOCABULARY, temperature), student.double())
    reference = dense(teacher.double(), student.double(), temperature).item()
    assert exact.item() == pytest.approx(reference, rel=1e-9, abs=1e-9)


@few
@given(SEEDS, SEEDS, TOP_K, TEMPERATURES)
def test_divergence_is_between_zero_and_dense(
    one: int, two: int, top_k: int, temperature: float
) -> None:
    teacher, student = logits(one), logits(two)
    packed = pack(teacher, top_k, temperature)
    assert divergence(packed, teacher).item() == pytest.approx(0.0, abs=2e-5 * temperature**2)
    actual = divergence(packed, student).item()
    if one != two:
        assert actual > 0
    assert actual <= dense(teacher, student, temperature).item() * (1 + 1e-4) + 1e-4


@few
@given(SEEDS, SEEDS, TOP_K, TEMPERATURES)
def test_divergence_gradient_equals_torch(
    one: int, two: int, top_k: int, temperature: float
) -> None:
    """Below the vocabulary: all other tokens as one outcome, written out densely."""
    teacher, student = logits(one).double(), logits(two).double().requires_grad_()
    packed = pack(teacher, top_k, temperature)
    (actual,) = torch.autograd.grad(divergence(packed, student), student)
    p, q = (log_softmax(item / temperature, -1) for item in (teacher, student))
    outside = torch.ones_like(p, dtype=torch.bool).scatter(1, packed.places, False)

    def outcomes(scores: Tensor) -> Tensor:
        chosen = scores.gather(1, packed.places).exp()
        others = (scores.exp() * outside).sum(1, keepdim=True)
        return chosen if top_k == VOCABULARY else torch.cat((chosen, others), 1)

    reference = temperature**2 * kl_div(outcomes(q).log(), outcomes(p), reduction="sum")
    assert torch.allclose(actual, torch.autograd.grad(reference, student)[0], atol=1e-9)


def test_divergence_passes_gradcheck() -> None:
    teacher = pack(logits(1, 2, 7).double(), 3, 2.0)
    assert torch.autograd.gradcheck(
        lambda x: divergence(teacher, x), logits(2, 2, 7).double().requires_grad_()
    )


@few
@given(SEEDS, TOP_K, TEMPERATURES)
def test_packed_mass_is_one_of_likeliest_tokens(seed: int, top_k: int, temperature: float) -> None:
    teacher = pack(logits(seed), top_k, temperature)
    mass = teacher.values.exp().sum(1) + teacher.rest.exp()
    assert torch.allclose(mass, torch.ones(5), atol=1e-5)
    assert torch.allclose(teacher.probabilities().sum(1), torch.ones(5), atol=1e-5)
    reference = logits(seed).topk(top_k).indices.sort(1).values
    assert torch.equal(teacher.places, reference)


@few
@given(SEEDS, SEEDS, st.floats(0.1, 10.0))
def test_mean_of_complete_teachers_is_dense_mean(one: int, two: int, weight: float) -> None:
    a, b = (pack(logits(seed), VOCABULARY, 2.0) for seed in (one, two))
    reference = (weight * a.probabilities() + b.probabilities()) / (weight + 1)
    assert torch.allclose(mean([a, b], [weight, 1.0]).probabilities(), reference, atol=1e-6)


@few
@given(SEEDS, SEEDS, st.integers(1, VOCABULARY))
def test_mean_of_teachers_is_a_distribution(one: int, two: int, top_k: int) -> None:
    """Of equal ones it is theirs; the order and the size of the weights do not matter."""
    a, b = (pack(logits(seed), top_k, 2.0) for seed in (one, two))
    same = mean([a, a], [1.0, 3.0])
    assert torch.equal(same.places, a.places)
    assert torch.allclose(same.values, a.values, atol=1e-5)
    assert same.temperature == a.temperature
    left, right = mean([a, b], [1.0, 2.0]), mean([b, a], [4.0, 2.0])
    assert torch.allclose(left.values, right.values, atol=1e-5)
    assert torch.allclose(left.probabilities().sum(1), torch.ones(5), atol=1e-5)


def test_divergence_is_finite_at_extremes() -> None:
    sure = torch.zeros(1, 6)
    sure[0, 2] = 1e6
    student = torch.tensor([[0.0, 0, -300, 0, 0, 0]], requires_grad=True)
    for top_k in (1, 3, 6):
        actual = divergence(pack(sure, top_k, 0.5), student)
        assert torch.isfinite(actual) and actual.item() > 100
        assert torch.isfinite(torch.autograd.grad(actual, student)[0]).all()


def expected(teacher: PackedLogits, **changes: object) -> ExpectedLogits:
    like = ExpectedLogits("b", len(teacher), teacher.top_k, teacher.vocabulary, teacher.temperature)
    return replace(like, **changes)  # type: ignore[arg-type]


@few
@given(SEEDS, st.sampled_from([(1, 5), (3, 200), (7, 256), (200, 256), (5, 257), (4, 70_000)]))
def test_frame_round_trip_has_formula_bytes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: tuple[int, int]
) -> None:
    top_k, vocabulary = sizes
    teacher = pack(logits(seed, 4, vocabulary), top_k, 1.5)
    folder = tmp_path_factory.mktemp("packed")
    info = write_packed(folder / "a", teacher, "b")
    assert info.sha256 == write_packed(folder / "b", teacher, "b").sha256
    header = read_header(folder / "a")
    assert info.size - header.data_start == payload_bytes(4, top_k, vocabulary)
    read = read_packed(folder / "a", expected(teacher))
    assert torch.equal(read.places, teacher.places)
    assert torch.allclose(read.values.exp(), teacher.values.exp(), rtol=2e-2, atol=1e-6)
    assert torch.allclose(read.values.exp().sum(1) + read.rest.exp(), torch.ones(4), atol=1e-5)


def test_token_bytes_by_vocabulary() -> None:
    assert [place_bytes(n) for n in (2, 256, 257, 3159, 32_128, 65_536, 65_537)] == [
        1, 1, 2, 2, 2, 2, 3,
    ]  # fmt: skip
    assert payload_bytes(100, 32, 32_128) == 100 * (32 * 4 + 2)


FOREIGN = [
    ({"bridge": "other"}, "bridge='b' where 'other' is due"),
    ({"vocabulary": 41}, "vocabulary='40' where '41' is due"),
    ({"temperature": 1.0}, "temperature='2.0' where '1.0' is due"),
    ({"rows": 6}, "does not hold 3 tokens of each of 6"),
    ({"top_k": 4}, "does not hold 4 tokens of each of 5"),
]


@pytest.mark.parametrize(("changes", "output"), FOREIGN)
def test_unexpected_frames_are_refused(
    tmp_path: Path, changes: dict[str, object], output: str
) -> None:
    teacher = pack(logits(1), 3, 2.0)
    write_packed(tmp_path / "a", teacher, "b")
    with pytest.raises(WireError, match=output):
        read_packed(tmp_path / "a", expected(teacher, **changes))


def test_invalid_frame_values_are_refused(tmp_path: Path) -> None:
    teacher = pack(logits(1), 3, 2.0)
    wrong = [
        (replace(teacher, places=teacher.places.flip(1)), "names a token twice"),
        (replace(teacher, places=teacher.places + VOCABULARY), "names a token twice"),
        (replace(teacher, values=teacher.values.clone().fill_(torch.nan)), "no log-probabilities"),
        (replace(teacher, values=teacher.values + 50), "no log-probabilities"),
        (replace(teacher, values=teacher.values - 9, rest=teacher.rest - 9), "do not add up to 1"),
    ]
    for number, (item, output) in enumerate(wrong):
        write_packed(tmp_path / str(number), item, "b")
        with pytest.raises(WireError, match=output):
            read_packed(tmp_path / str(number), expected(teacher))


def test_invalid_packing_is_refused() -> None:
    for top_k, temperature, output in ((41, 1.0, "from 1 to 40"), (0, 1.0, "from 1 to 40"),
                                    (4, 0.0, "above 0"), (4, -1.0, "above 0")):  # fmt: skip
        with pytest.raises(ModelError, match=output):
            pack(logits(1), top_k, temperature)
    with pytest.raises(ModelError, match="take models of one family"):
        divergence(pack(logits(1), 4, 1.0), logits(1, vocabulary=41))
    with pytest.raises(ModelError, match="one vocabulary and one temperature"):
        mean([pack(logits(1), 4, 1.0), pack(logits(1), 4, 2.0)], [1.0, 1.0])
