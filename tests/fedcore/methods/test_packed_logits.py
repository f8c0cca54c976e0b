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
    """torch's own: T^2 KL(teacher || student), summed."""
    p, q = (log_softmax(item / temperature, -1) for item in (teacher, student))
    return temperature**2 * kl_div(q, p, reduction="sum", log_target=True)


SEEDS = st.integers(0, 10_000)
TEMPERATURES = st.floats(0.3, 8.0)
KEPT = st.integers(1, VOCABULARY)
few = settings(max_examples=40, deadline=None)


@few
@given(SEEDS, SEEDS, TEMPERATURES)
def test_with_the_whole_vocabulary_it_is_the_dense_divergence(
    one: int, two: int, temperature: float
) -> None:
    teacher, student = logits(one), logits(two)
    found = divergence(pack(teacher, VOCABULARY, temperature), student)
    assert found.item() == pytest.approx(dense(teacher, student, temperature).item(), rel=1e-5,
                                         abs=1e-6 * temperature**2 * 5)  # fmt: skip
    exact = divergence(pack(teacher.double(), VOCABULARY, temperature), student.double())
    wanted = dense(teacher.double(), student.double(), temperature).item()
    assert exact.item() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@few
@given(SEEDS, SEEDS, KEPT, TEMPERATURES)
def test_it_is_zero_for_equal_models_positive_for_others_and_never_above_the_dense_one(
    one: int, two: int, kept: int, temperature: float
) -> None:
    teacher, student = logits(one), logits(two)
    packed = pack(teacher, kept, temperature)
    assert divergence(packed, teacher).item() == pytest.approx(0.0, abs=2e-5 * temperature**2)
    found = divergence(packed, student).item()
    if one != two:
        assert found > 0
    assert found <= dense(teacher, student, temperature).item() * (1 + 1e-4) + 1e-4


@few
@given(SEEDS, SEEDS, KEPT, TEMPERATURES)
def test_its_gradient_is_torchs_on_the_same_outcomes(
    one: int, two: int, kept: int, temperature: float
) -> None:
    """Below the vocabulary: all other tokens as one outcome, written out densely."""
    teacher, student = logits(one).double(), logits(two).double().requires_grad_()
    packed = pack(teacher, kept, temperature)
    (found,) = torch.autograd.grad(divergence(packed, student), student)
    p, q = (log_softmax(item / temperature, -1) for item in (teacher, student))
    outside = torch.ones_like(p, dtype=torch.bool).scatter(1, packed.places, False)

    def outcomes(scores: Tensor) -> Tensor:
        named = scores.gather(1, packed.places).exp()
        others = (scores.exp() * outside).sum(1, keepdim=True)
        return named if kept == VOCABULARY else torch.cat((named, others), 1)

    wanted = temperature**2 * kl_div(outcomes(q).log(), outcomes(p), reduction="sum")
    assert torch.allclose(found, torch.autograd.grad(wanted, student)[0], atol=1e-9)


def test_gradcheck() -> None:
    teacher = pack(logits(1, 2, 7).double(), 3, 2.0)
    assert torch.autograd.gradcheck(
        lambda x: divergence(teacher, x), logits(2, 2, 7).double().requires_grad_()
    )


@few
@given(SEEDS, KEPT, TEMPERATURES)
def test_its_mass_is_one_and_its_tokens_are_the_likeliest(
    seed: int, kept: int, temperature: float
) -> None:
    teacher = pack(logits(seed), kept, temperature)
    mass = teacher.values.exp().sum(1) + teacher.rest.exp()
    assert torch.allclose(mass, torch.ones(5), atol=1e-5)
    assert torch.allclose(teacher.probabilities().sum(1), torch.ones(5), atol=1e-5)
    wanted = logits(seed).topk(kept).indices.sort(1).values
    assert torch.equal(teacher.places, wanted)


@few
@given(SEEDS, SEEDS, st.floats(0.1, 10.0))
def test_the_mean_of_whole_teachers_is_the_dense_mean(one: int, two: int, weight: float) -> None:
    a, b = (pack(logits(seed), VOCABULARY, 2.0) for seed in (one, two))
    wanted = (weight * a.probabilities() + b.probabilities()) / (weight + 1)
    assert torch.allclose(mean([a, b], [weight, 1.0]).probabilities(), wanted, atol=1e-6)


@few
@given(SEEDS, SEEDS, st.integers(1, VOCABULARY))
def test_means_of_teachers(one: int, two: int, kept: int) -> None:
    """Of equal ones it is theirs; the order and the size of the weights do not matter."""
    a, b = (pack(logits(seed), kept, 2.0) for seed in (one, two))
    same = mean([a, a], [1.0, 3.0])
    assert torch.equal(same.places, a.places)
    assert torch.allclose(same.values, a.values, atol=1e-5)
    assert same.temperature == a.temperature
    left, right = mean([a, b], [1.0, 2.0]), mean([b, a], [4.0, 2.0])
    assert torch.allclose(left.values, right.values, atol=1e-5)
    assert torch.allclose(left.probabilities().sum(1), torch.ones(5), atol=1e-5)


def test_certain_teachers_and_far_students_stay_finite() -> None:
    sure = torch.zeros(1, 6)
    sure[0, 2] = 1e6
    student = torch.tensor([[0.0, 0, -300, 0, 0, 0]], requires_grad=True)
    for kept in (1, 3, 6):
        found = divergence(pack(sure, kept, 0.5), student)
        assert torch.isfinite(found) and found.item() > 100
        assert torch.isfinite(torch.autograd.grad(found, student)[0]).all()


def expected(teacher: PackedLogits, **changes: object) -> ExpectedLogits:
    like = ExpectedLogits("b", len(teacher), teacher.top_k, teacher.vocabulary, teacher.temperature)
    return replace(like, **changes)  # type: ignore[arg-type]


@few
@given(SEEDS, st.sampled_from([(1, 5), (3, 200), (7, 256), (200, 256), (5, 257), (4, 70_000)]))
def test_a_frame_has_the_bytes_of_the_formula_and_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: tuple[int, int]
) -> None:
    kept, vocabulary = sizes
    teacher = pack(logits(seed, 4, vocabulary), kept, 1.5)
    folder = tmp_path_factory.mktemp("packed")
    info = write_packed(folder / "a", teacher, "b")
    assert info.sha256 == write_packed(folder / "b", teacher, "b").sha256
    header = read_header(folder / "a")
    assert info.size - header.data_start == payload_bytes(4, kept, vocabulary)
    read = read_packed(folder / "a", expected(teacher))
    assert torch.equal(read.places, teacher.places)
    assert torch.allclose(read.values.exp(), teacher.values.exp(), rtol=2e-2, atol=1e-6)
    assert torch.allclose(read.values.exp().sum(1) + read.rest.exp(), torch.ones(4), atol=1e-5)


def test_the_bytes_of_a_token() -> None:
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


@pytest.mark.parametrize(("changes", "said"), FOREIGN)
def test_frames_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    teacher = pack(logits(1), 3, 2.0)
    write_packed(tmp_path / "a", teacher, "b")
    with pytest.raises(WireError, match=said):
        read_packed(tmp_path / "a", expected(teacher, **changes))


def test_frames_that_hold_nonsense_are_refused(tmp_path: Path) -> None:
    teacher = pack(logits(1), 3, 2.0)
    wrong = [
        (replace(teacher, places=teacher.places.flip(1)), "names a token twice"),
        (replace(teacher, places=teacher.places + VOCABULARY), "names a token twice"),
        (replace(teacher, values=teacher.values.clone().fill_(torch.nan)), "no log-probabilities"),
        (replace(teacher, values=teacher.values + 50), "no log-probabilities"),
        (replace(teacher, values=teacher.values - 9, rest=teacher.rest - 9), "do not add up to 1"),
    ]
    for number, (item, said) in enumerate(wrong):
        write_packed(tmp_path / str(number), item, "b")
        with pytest.raises(WireError, match=said):
            read_packed(tmp_path / str(number), expected(teacher))


def test_bad_packing_is_refused() -> None:
    for kept, temperature, said in ((41, 1.0, "from 1 to 40"), (0, 1.0, "from 1 to 40"),
                                    (4, 0.0, "above 0"), (4, -1.0, "above 0")):  # fmt: skip
        with pytest.raises(ModelError, match=said):
            pack(logits(1), kept, temperature)
    with pytest.raises(ModelError, match="take models of one family"):
        divergence(pack(logits(1), 4, 1.0), logits(1, vocabulary=41))
    with pytest.raises(ModelError, match="one vocabulary and one temperature"):
        mean([pack(logits(1), 4, 1.0), pack(logits(1), 4, 2.0)], [1.0, 1.0])
