"""What devices tell of the model they received: its loss before training, an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedcore.methods.session import Session
from fedcore.model.initial import write_initial
from fedcore.spec.job import JobSpec
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from tests.fedcore.conftest import sentences, spec_of, write_jsonl


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(str(write_jsonl(tmp_path / "rows.jsonl", sentences(3, 24))))


def job(tiny: Path, **train: object) -> JobSpec:
    dropout = {"train": {"dropout": 0.5, **train}, "adapter": {"dropout": 0.5}}
    return spec_of(tiny, strategy={"name": "qfedavg"}, **dropout)


@pytest.mark.parametrize("kernels", ["fast", "plain"])
def test_mean_loss_equals_the_evaluation_loss(
    tiny: Path, tmp_path: Path, source: Source, kernels: str
) -> None:
    """Without dropout, whatever the batches."""
    spec, session = job(tiny, kernels=kernels), Session(tmp_path / "cache")
    write_initial(spec, tmp_path / "global")
    mean_loss = session.train(spec, tmp_path / "global", source, 1, 0).loss_before
    prepared = session.prepare(spec, source)
    on_train = replace(prepared, validation=prepared.train, references=("",) * prepared.examples)
    expected = session.evaluate(spec, tmp_path / "global", on_train).loss
    assert mean_loss == pytest.approx(expected, rel=1e-5)


def test_measuring_loss_changes_no_training_bit(tiny: Path, tmp_path: Path, source: Source) -> None:
    spec = job(tiny)
    plain = replace(spec, strategy=replace(spec.strategy, name="fedavg"))
    write_initial(spec, tmp_path / "global")
    session = Session(tmp_path / "cache")
    one, two = (session.train(item, tmp_path / "global", source, 1, 0) for item in (spec, plain))
    assert one.loss_before is not None and two.loss_before is None
    assert all(torch.equal(one.tensors[n], two.tensors[n]) for n in one.tensors)


def test_evaluation_values_are_numbers_by_name() -> None:
    """The server takes nothing else."""
    numbers = Evaluation(1.0, 2.0, 3.0, 4.0, 5, 6, 7.0, {"personal_loss": 0.5}).values()
    assert numbers["personal_loss"] == 0.5 and numbers["loss"] == 1.0
    assert all(isinstance(value, int | float) for value in numbers.values()), numbers
