"""FedPipe's probe on a real device's data: what a matrix is worth, and what it leaves untouched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedcore.architecture.matrices import matrices
from fedcore.methods.fedpipe.probe import nudge, sensitivity
from fedcore.methods.session import Session
from fedcore.model.initial import write_initial
from fedcore.model.parameters import adapter_parameters
from fedcore.seeds import derive
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import LORA_TARGETS
from fedcore.spec.overrides import factor_of
from fedcore.train.batches import SpecialTokens, collate, forward, token_losses
from fedcore.train.datasets import Source
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

LEFT = "encoder.block.0.layer.0.SelfAttention.q"


@pytest.fixture
def job(tiny: Path) -> JobSpec:
    adapter = {"rank": 2, "targets": LORA_TARGETS, "aggregation": "flexlora"}
    return spec_of(tiny, adapter=adapter, method={"name": "fedpipe"})


@pytest.fixture
def weights(job: JobSpec, tmp_path: Path) -> Path:
    path = tmp_path / "global-0.safetensors"
    write_initial(job, path)
    return path


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "cache", 1)


def test_probe_scores_every_matrix_repeatably(
    job: JobSpec, weights: Path, session: Session, rows_file: Path
) -> None:
    source = Source(str(rows_file))
    actual = sensitivity(session, job, weights, source, 0)
    with session.ready(job, weights) as loaded:
        assert set(actual) == {row.key for row in matrices(loaded.sizes)}
    assert all(score > 0 for score in actual.values())
    assert len(set(actual.values())) > len(actual) / 2
    assert sensitivity(session, job, weights, source, 0) == actual
    assert sensitivity(session, job, weights, source, 1) != actual, "slots probe different examples"


def test_probe_skips_excluded_matrices(
    job: JobSpec, weights: Path, session: Session, rows_file: Path
) -> None:
    less = replace(job, adapter=replace(job.adapter, pattern=(f"{LEFT}=0",), targets=("q", "v")))
    actual = sensitivity(session, less, weights, Source(str(rows_file)), 0)
    assert "e0.q" not in actual and "e1.q" in actual and "e0.wo" not in actual


def test_probe_with_zero_b_scores_zero(
    job: JobSpec, weights: Path, session: Session, rows_file: Path
) -> None:
    """At the job's start B = 0: A has no gradient, B no weight, and every score would be 0."""
    for nudged in (False, True):
        with session.ready(job, weights) as loaded:
            if nudged:
                nudge(loaded.model, job.train.learning_rate, 1)
            _backward(job, session, rows_file)
            for name, parameter in adapter_parameters(loaded.model):
                assert parameter.grad is not None
                score = float((parameter.detach() * parameter.grad).abs().sum())
                assert (score > 0) is nudged, name
            loaded.model.zero_grad(set_to_none=True)


def test_one_batch_score_is_sum_of_weight_gradient(
    job: JobSpec, weights: Path, session: Session, tmp_path: Path
) -> None:
    """Against the plain modules of transformers, their loss and torch's gradients."""
    file = write_jsonl(tmp_path / "few.jsonl", sentences(2, 10))
    whole = replace(job, train=replace(job.train, batch_size=16))
    actual = sensitivity(session, whole, weights, Source(str(file)), 0)
    expected: dict[str, float] = {}
    with session.ready(job, weights) as loaded:
        nudge(loaded.model, job.train.learning_rate, derive(job.seed, "probe"))
        _backward(job, session, file)
        keys = {row.name: row.key for row in matrices(loaded.sizes)}
        for name, parameter in adapter_parameters(loaded.model):
            assert parameter.grad is not None
            key = keys[factor_of(name)[0]]
            moved = float((parameter.detach() * parameter.grad).abs().sum())
            expected[key] = expected.get(key, 0.0) + moved
        loaded.model.zero_grad(set_to_none=True)
    assert actual == pytest.approx(expected, rel=2e-3)


def test_probe_does_not_affect_training(
    job: JobSpec, weights: Path, session: Session, rows_file: Path
) -> None:
    source = Source(str(rows_file))
    before = session.train(job, weights, source, 1, 0).tensors
    sensitivity(session, job, weights, source, 0)
    after = session.train(job, weights, source, 1, 0).tensors
    assert all(torch.equal(before[name], after[name]) for name in before)


def _backward(job: JobSpec, session: Session, file: Path) -> None:
    """The mean token loss over all training examples of a file, backwards."""
    prepared = session.prepare(job, Source(str(file)))
    loaded = session._loaded
    assert loaded is not None
    loaded.model.eval()  # without dropout
    rows = [prepared.train[i] for i in range(len(prepared.train))]
    batch = collate(rows, SpecialTokens.of(loaded.model.config), session.device)
    loss = token_losses(forward(loaded.model, batch, torch.float32), batch).sum()
    (loss / batch.target_tokens).backward()
