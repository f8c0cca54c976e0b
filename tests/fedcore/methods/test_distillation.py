"""The losses of leaves and inner nodes on the bridge, by hand, and what a model says on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from fedcore.compute.determinism import seed_torch
from fedcore.errors import TrainingError
from fedcore.methods.agglomerative.method import agglomerative
from fedcore.methods.contract import Context, DeviceState
from fedcore.methods.distillation.bridge import Bridge, TeacherSignal
from fedcore.methods.distillation.bridge_kernels import (
    DistillationKernels,
    bridge_logits,
)
from fedcore.methods.distillation.packed_logits import PackedLogits, pack
from fedcore.methods.session import Session, Update
from fedcore.model.initial import write_initial
from fedcore.spec.job import JobSpec
from fedcore.train.batches import SpecialTokens, collate, forward
from fedcore.train.datasets import Source
from fedcore.train.kernels import KernelContext, kernels_of
from fedcore.train.loaded_model import LoadedModel
from fedcore.train.loop import TrainingTask
from tests.fedcore.conftest import make_model, sentences, spec_of, write_jsonl

CPU = torch.device("cpu")
VOCABULARY = 64


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(str(write_jsonl(tmp_path / "own.jsonl", sentences(3, 24))))


@pytest.fixture
def bridge(tiny: Path, tmp_path: Path) -> Bridge:
    shared = Source(str(write_jsonl(tmp_path / "bridge.jsonl", sentences(8, 20))))
    return Bridge.of(Session(tmp_path / "cache", 1).prepare(spec_of(tiny), shared).train)


def leaf(tiny: Path, **changes: object) -> JobSpec:
    changes.setdefault("train", {"dropout": 0.0})
    return spec_of(tiny, adapter={"rank": 2, "dropout": 0.0}, method={"name": "agglomerative"},
                   **changes)  # fmt: skip


def random_teacher(
    bridge: Bridge, top_k: int = VOCABULARY, temperature: float = 2.0
) -> PackedLogits:
    logits = torch.randn(bridge.rows, VOCABULARY, generator=torch.Generator().manual_seed(4))
    return pack(3 * logits, top_k, temperature)


def logits_of(model: object, bridge: Bridge) -> Tensor:
    """By transformers' modules, one example after the other."""
    rows = []
    for number in range(len(bridge)):
        batch = collate([bridge[number]], SpecialTokens.of(model.config), CPU)  # type: ignore[attr-defined]
        rows.append(forward(model, batch, torch.float32)[0])
    return torch.cat(rows)


def labels_of(bridge: Bridge) -> Tensor:
    return torch.tensor([int(token) for row in range(len(bridge)) for token in bridge[row].target])


def context_of(
    spec: JobSpec, folder: Path, source: Source, lesson: TeacherSignal | None
) -> Context:
    write_initial(spec, folder / "first")
    loaded = LoadedModel.of(spec, torch.float32)
    loaded.load_weights(spec, folder / "first", CPU)
    examples = Session(folder / "cache", 1).prepare(spec, source).train
    work = TrainingTask(loaded.model, examples, spec.train, loaded.cost(spec).training, 5, CPU,
                torch.float32)  # fmt: skip
    loaded.model.eval()
    return Context(spec, work, 1, DeviceState(teacher=lesson))


def test_bridge_numbers_target_tokens(bridge: Bridge, tiny: Path, tmp_path: Path) -> None:
    assert bridge.rows == sum(target for _, target in bridge.lengths)
    rows = torch.cat([bridge[number].rows for number in range(len(bridge))])
    assert torch.equal(rows, torch.arange(bridge.rows))
    assert bridge.digest == Bridge.of(bridge).digest
    assert bridge.digest != Bridge.of(bridge.some([1, 0, 2])).digest


@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_bridge_logits_are_teacher_forced(
    tiny: Path, tmp_path: Path, source: Source, bridge: Bridge, kind: str
) -> None:
    model = context_of(leaf(tiny), tmp_path, source, None).work.model
    task = KernelContext(model, CPU, torch.float32, 0.0, checkpointing=False, seed=0)
    actual = bridge_logits(task, kind, bridge, (7, 1.5))
    with torch.no_grad():
        expected = pack(logits_of(model, bridge), 7, 1.5)
    assert torch.allclose(actual.values, expected.values, atol=1e-4)
    assert torch.allclose(actual.rest, expected.rest, atol=1e-4)
    assert (actual.places == expected.places).float().mean() > 0.99


@pytest.mark.parametrize("kind", ["plain", "fast"])
def test_bridge_loss_by_hand(
    tiny: Path, tmp_path: Path, source: Source, bridge: Bridge, kind: str
) -> None:
    model = context_of(leaf(tiny), tmp_path, source, None).work.model
    teacher = random_teacher(bridge, temperature=1.5)
    task = KernelContext(model, CPU, torch.float32, 0.0, checkpointing=False, seed=0)
    kernels = DistillationKernels(kernels_of(kind, task), teacher, 0.7)
    chosen = [bridge[row] for row in (3, 0, 5)]
    batch = kernels.load(chosen)
    actual = kernels.loss(kernels.forward(batch, 0), batch)
    rows = torch.cat([example.rows for example in chosen])
    logits = logits_of(model, bridge)[rows]
    expected = cross_entropy(logits, labels_of(bridge)[rows], reduction="sum")
    p = teacher.probabilities()[rows]
    expected = expected + 0.7 * 1.5**2 * kl_div(log_softmax(logits / 1.5, -1), p, reduction="sum")
    assert actual.item() == pytest.approx(expected.item(), rel=1e-4)


def test_leaf_term_is_gamma_times_mean_batch_loss(
    tiny: Path, tmp_path: Path, source: Source, bridge: Bridge
) -> None:
    """With a batch as large as the bridge it is the whole bridge's loss."""
    lesson = TeacherSignal(bridge, random_teacher(bridge))
    values = {}
    for gamma in (0.5, 2.0):
        spec = leaf(tiny, distill={"gamma": gamma, "beta": 0.3},
                    train={"batch_size": 64, "dropout": 0.0})  # fmt: skip
        context = context_of(spec, tmp_path, source, lesson)
        term = agglomerative(context)
        actual = term.penalty({})
        assert actual is not None and term.kernels is None
        values[gamma] = actual.item()
    logits = logits_of(context.work.model, bridge)
    p = lesson.logits.probabilities()  # type: ignore[union-attr]
    expected = cross_entropy(logits, labels_of(bridge)) + 0.3 * 4 * kl_div(
        log_softmax(logits / 2, -1), p, reduction="batchmean"
    )
    for gamma, value in values.items():
        assert value == pytest.approx(gamma * expected.item(), rel=1e-4)


def test_bridge_batches_fit_the_micro_batch(
    tiny: Path, tmp_path: Path, source: Source, bridge: Bridge
) -> None:
    spec = leaf(tiny, train={"batch_size": 4, "micro_batch": 2, "dropout": 0.0})
    term = agglomerative(context_of(spec, tmp_path, source, TeacherSignal(bridge)))
    seen = [term.penalty({}).item() for _ in range(len(bridge) // 2)]  # type: ignore[union-attr]
    assert len(set(seen)) == len(seen)


def train(spec: JobSpec, folder: Path, source: Source, lesson: TeacherSignal | None) -> Update:
    write_initial(spec, folder / "first")
    return Session(folder / "cache", 1).train(
        spec, folder / "first", source, 2, 0, device_state=DeviceState(teacher=lesson)
    )


def same(one: Update, two: Update) -> bool:
    return all(torch.equal(one.tensors[n], two.tensors[n]) for n in one.tensors | two.tensors)


@pytest.mark.parametrize("kernels", ["plain", "fast"])
def test_zero_gamma_equals_plain_training(
    tiny: Path, tmp_path: Path, source: Source, bridge: Bridge, kernels: str
) -> None:
    train_options = {"dropout": 0.1, "kernels": kernels}
    lesson = TeacherSignal(bridge, random_teacher(bridge))
    expected = train(spec_of(tiny, adapter={"rank": 2, "dropout": 0.0}, train=train_options),
                   tmp_path, source, None)  # fmt: skip
    alone = leaf(tiny, distill={"gamma": 0}, train=train_options)
    assert same(expected, train(alone, tmp_path, source, lesson))
    taught = leaf(tiny, train=train_options)
    actual = train(taught, tmp_path, source, lesson)
    assert not same(expected, actual)
    assert same(actual, train(taught, tmp_path, source, lesson))  # the same once more
    quiet = leaf(tiny, train=train_options, distill={"beta": 0})
    assert same(train(quiet, tmp_path, source, lesson), train(taught, tmp_path, source,
                                                              TeacherSignal(bridge)))  # fmt: skip


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_inner_node_approaches_its_teacher(
    tiny: Path, tmp_path: Path, bridge: Bridge, kind: str
) -> None:
    """The teacher is another random model; the examples are the bridge's."""
    other = make_model(tmp_path / "other", seed=9)
    spec = leaf(tiny, distill={"beta": 5.0, "temperature": 2.0},
                train={"local_steps": 30, "learning_rate": 0.01, "dropout": 0.0})  # fmt: skip
    spec = replace(spec, adapter=replace(spec.adapter, kind=kind, targets=("q", "v", "wo")))
    models = [
        LoadedModel.of(replace(spec, model=replace(spec.model, name=str(name))), torch.float32)
        for name in (other, tiny)
    ]
    task = KernelContext(models[0].base.model, CPU, torch.float32, 0.0, checkpointing=False, seed=0)
    teacher = bridge_logits(task, "fast", bridge, (8, 2.0))
    prepared = Session(tmp_path / "cache", 1).prepare(
        spec, Source(str(write_jsonl(tmp_path / "b.jsonl", sentences(8, 20))))
    )
    lesson = TeacherSignal(bridge, teacher, bridge_only=True)
    write_initial(spec, tmp_path / "first")
    session = Session(tmp_path / "cache", 1)
    actual = session.train(
        spec,
        tmp_path / "first",
        replace(prepared, train=bridge),
        1,
        0,
        device_state=DeviceState(teacher=lesson),
    )
    seed_torch(0)
    student = kernels_of("fast", replace(task, model=models[1].base.model))
    before = DistillationKernels(student, teacher, 5.0)
    batch = before.load([bridge[row] for row in range(len(bridge))])
    first = before.loss(before.forward(batch, 0), batch).item() / bridge.rows
    assert actual.summary.loss < first  # a mean over the steps is below where it began
    assert actual.steps == 30


def test_missing_bridge_error_names_the_module(tiny: Path, tmp_path: Path, source: Source) -> None:
    with pytest.raises(TrainingError, match="train through fedcore"):
        agglomerative(context_of(leaf(tiny), tmp_path, source, None))
