"""The local loop, its objectives and measurements, and evaluation by generation."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer

from fedcore.compute.device import has_bf16, pick_precision
from fedcore.errors import ModelError, Stopped, TrainingError
from fedcore.methods.session import Session, Update
from fedcore.model.initial import write_initial
from fedcore.spec.options.train import TrainSpec
from fedcore.train.batches import groups, steps_of
from fedcore.train.datasets import Source
from fedcore.train.evaluate import rouge
from fedcore.train.loop import schedule
from fedcore.train.telemetry import PHASES, Hooks, Measurement, Recorder
from fedcore.wire.frame import FrameReader, write_frame
from tests.fedcore.conftest import make_model, sentences, spec_of, write_jsonl

CPU = torch.device("cpu")


class Bench:
    """A device with two files and the first global weights of a job."""

    def __init__(self, folder: Path, model: Path, **changes: object) -> None:
        self.folder, self.spec = folder, spec_of(model, **changes)
        self.path = folder / "global"
        self.info = write_initial(self.spec, self.path)
        self.sources = [
            Source(str(write_jsonl(folder / f"{seed}.jsonl", sentences(seed, 24))))
            for seed in (1, 2)
        ]

    def train(self, session: Session | None = None, device: int = 0, **hooks: object) -> Update:
        session = session or Session(self.folder / "cache")
        return session.train(self.spec, self.path, self.sources[device], 1, device, Hooks(**hooks))


def same(one: Update, two: Update) -> bool:
    return all(torch.equal(one.tensors[n], two.tensors[n]) for n in one.tensors | two.tensors)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_training_depends_on_its_arguments_alone(tiny: Path, tmp_path: Path, kind: str) -> None:
    """Device B after A in one session equals B alone in a fresh one: nothing leaks."""
    bench = Bench(tmp_path, tiny, adapter={"kind": kind}, train={"dropout": 0.2})
    shared = Session(tmp_path / "cache")
    bench.train(shared, 0)
    shared.evaluate(bench.spec, bench.path, bench.sources[0])
    torch.manual_seed(123)
    second = bench.train(shared, 1)
    with pytest.raises(Stopped):
        bench.train(shared, 0, should_stop=lambda: True)
    assert same(second, bench.train(shared, 1))
    torch.manual_seed(456)
    alone = bench.train(Session(tmp_path / "other-cache"), 1)
    assert same(second, alone) and second.summary.loss == alone.summary.loss
    assert not same(second, bench.train(shared, 0))


def test_dropout_of_another_job_is_reset(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, tiny)
    session = Session(tmp_path / "cache")
    expected = bench.train(session)
    odd = replace(bench.spec, train=replace(bench.spec.train, dropout=0.5))
    assert not same(expected, session.train(odd, bench.path, bench.sources[0], 1, 0))
    assert same(expected, bench.train(session))


def test_round_and_slot_seed_order_and_dropout(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, tiny)
    session = Session(tmp_path / "cache")
    runs = [
        session.train(bench.spec, bench.path, bench.sources[0], round_number, slot)
        for round_number, slot in ((1, 0), (2, 0), (1, 1))
    ]
    assert not same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_loss_falls_and_rouge_is_scored(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, tiny, adapter={"kind": "full"}, train={"local_steps": 30, "batch_size": 8}
    )
    session = Session(tmp_path / "cache")
    before = session.evaluate(bench.spec, bench.path, bench.sources[0])
    update = bench.train(session)
    tuned = FrameReader(bench.path)
    weights = {n: tuned[n] + update.tensors[n] for n in tuned}
    write_frame(tmp_path / "next", weights, dict(tuned.meta))
    after = session.evaluate(bench.spec, tmp_path / "next", bench.sources[0])
    assert after.loss < before.loss - 0.5 and update.summary.loss < before.loss
    assert (after.examples, update.examples, update.steps) == (4, 20, 30)
    assert 0 <= after.rouge2 <= after.rouge1 <= 100 and after.tokens > 4


def test_accumulated_batches_equal_one_large_batch(tiny: Path, tmp_path: Path) -> None:
    """The mean is over all target tokens, so uneven batches weigh right."""
    still = {"train": {"dropout": 0.0}, "adapter": {"dropout": 0.0, "kind": "full"}}
    one = Bench(tmp_path, tiny, **still)
    one.spec = replace(one.spec, train=replace(one.spec.train, batch_size=10, local_steps=1))
    large = one.train()
    one.spec = replace(one.spec, train=replace(one.spec.train, batch_size=5, accumulation=2))
    small = one.train()
    assert large.summary.loss == pytest.approx(small.summary.loss, rel=1e-5)
    assert large.summary.tokens == small.summary.tokens
    for name, tensor in large.tensors.items():
        assert torch.allclose(tensor, small.tensors[name], atol=2e-3), name


def test_proximal_term_shortens_the_step(tiny: Path, tmp_path: Path) -> None:
    def moved(**strategy: object) -> Update:
        bench = Bench(tmp_path, tiny, strategy=strategy, train={"local_steps": 6, "clip_norm": 0})
        return bench.train()

    def norm(update: Update) -> float:
        return math.sqrt(sum(float(t.square().sum()) for t in update.tensors.values()))

    plain = moved(name="fedavg")
    assert same(plain, moved(name="fedprox", proximal_mu=0))
    sizes = [norm(moved(name="fedprox", proximal_mu=mu)) for mu in (0.0, 10.0, 1000.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_measurements_add_up(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, tiny, train={"local_steps": 7, "schedule": "linear"})
    measurements: list[Measurement] = []
    update = bench.train(report=measurements.append)
    last, summary = measurements[-1], update.summary
    assert (last.step, last.steps_total, summary.steps) == (7, 7, 7)
    assert sum(item.tokens for item in measurements) == summary.tokens
    assert sum(item.flops for item in measurements) == summary.flops > summary.tokens * 1000
    assert set(last.phase_s) == set(PHASES) and all(s > 0 for s in summary.phase_s.values())
    assert sum(summary.phase_s.values()) == pytest.approx(summary.seconds, rel=0.2)
    assert 0 < last.learning_rate < 0.01 and last.epoch == pytest.approx(7 * 4 / 20)
    assert last.tokens_per_s > 0 and last.flops_per_s > 0 and last.peak_memory_bytes > 1e6


def test_padding_counts_neither_as_tokens_nor_as_flops(tiny: Path, tmp_path: Path) -> None:
    whole = {"train": {"local_steps": 0, "local_epochs": 1, "batch_size": 20}}
    padded = Bench(tmp_path / "a", tiny, **whole).train().summary
    whole["train"]["batch_size"] = 1
    alone = Bench(tmp_path / "b", tiny, **whole).train().summary
    assert (padded.tokens, padded.flops) == (alone.tokens, alone.flops)


def test_telemetry_costs_less_than_two_percent(tiny: Path) -> None:
    """A step of the smallest real model takes over 20 ms, 50 times a step's book-keeping."""
    recorder = Recorder(CPU, Hooks())
    began = time.perf_counter()
    for _ in range(200):
        for phase in PHASES:
            recorder.clock.mark(phase)
        recorder.count(100, 1000)
        assert not recorder.due or recorder.clock.take()
    assert (time.perf_counter() - began) / 200 < 0.02 * 0.02


def test_report_interval_is_respected(tiny: Path, tmp_path: Path) -> None:
    assert Hooks().report_every_s == 1.0
    measurements: list[Measurement] = []
    Bench(tmp_path, tiny).train(report=measurements.append, report_every_s=0.0)
    assert [item.step for item in measurements] == [1, 2]
    assert measurements[0].elapsed_s < measurements[1].elapsed_s


def test_non_finite_loss_names_step_and_cause(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, tiny, adapter={"kind": "full"})
    reader = FrameReader(bench.path)
    weights = {n: reader[n].clone() for n in reader}
    weights["lm_head.weight"][3] = 3e38
    write_frame(bench.path, weights, dict(reader.meta))
    with pytest.raises(TrainingError, match=r"step 1 of 2: the loss is (nan|inf); lower the learn"):
        bench.train()


def test_diverging_training_is_stopped(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, tiny, adapter={"kind": "full"},
        train={"learning_rate": 10.0, "clip_norm": 0, "local_steps": 200, "weight_decay": 1.0},
    )  # fmt: skip
    reader = FrameReader(bench.path)
    weights = {n: reader[n] * 1e18 for n in reader}
    write_frame(bench.path, weights, dict(reader.meta))
    with pytest.raises(TrainingError, match=r"step \d+ of 200: the (loss|gradient's norm) is"):
        bench.train()


def test_stop_is_checked_at_every_step_and_token(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, tiny, train={"local_steps": 50})
    checks: list[int] = []

    def stop() -> bool:
        checks.append(1)
        return len(checks) > 3

    with pytest.raises(Stopped, match="local training was asked to stop"):
        bench.train(should_stop=stop)
    assert len(checks) == 4
    with pytest.raises(Stopped, match="evaluation was asked to stop"):
        Session(tmp_path / "c").evaluate(
            bench.spec, bench.path, bench.sources[0], Hooks(should_stop=stop)
        )


def test_weights_of_another_base_are_refused(tiny: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, tiny)
    bench.spec = replace(bench.spec, model=replace(bench.spec.model, name=str(
        make_model(tmp_path / "other", seed=1))))  # fmt: skip
    with pytest.raises(ModelError, match="foreign base"):
        bench.train()


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_bf16_trains_close_to_fp32_and_returns_fp32(tiny: Path, tmp_path: Path, kind: str) -> None:
    fp32 = Bench(tmp_path, tiny, adapter={"kind": kind}).train()
    bf16 = Bench(tmp_path, tiny, adapter={"kind": kind}, train={"precision": "bf16"}).train()
    assert bf16.summary.loss == pytest.approx(fp32.summary.loss, rel=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in bf16.tensors.values())


def test_auto_precision_is_bf16_only_where_fast() -> None:
    expected = torch.bfloat16 if has_bf16(CPU) else torch.float32
    assert pick_precision("auto", CPU) == expected
    assert pick_precision("fp32", CPU) == torch.float32


LENGTHS = [(5 + row, 3) for row in range(10)]


def test_batches_cover_an_epoch_once() -> None:
    train = TrainSpec(batch_size=3, accumulation=2, local_epochs=2)
    assert steps_of(train, 10) == 4
    order = groups(train, LENGTHS, seed=1)
    first = [next(order), next(order)]
    assert sorted(row for group in first for batch in group for row in batch) == list(range(10))
    assert [[len(batch) for batch in group] for group in first] == [[3, 3], [3, 1]]
    assert next(order) != first[0]
    assert next(groups(train, LENGTHS, seed=1)) == first[0] != next(groups(train, LENGTHS, seed=2))


def test_length_batches_cover_an_epoch_once() -> None:
    rng = random.Random(0)
    lengths = [(rng.randint(1, 500), 3) for _ in range(64)]
    order = groups(TrainSpec(batch_size=4, batching="length"), lengths, seed=1)
    batches = [next(order)[0] for _ in range(16)]
    assert sorted(row for batch in batches for row in batch) == list(range(64))
    spread = [max(lengths[i] for i in b)[0] - min(lengths[i] for i in b)[0] for b in batches]
    assert max(spread) < 150 and sum(spread) / 16 < 60
    means = [sum(lengths[i][0] for i in batch) for batch in batches]
    assert means != sorted(means)


@pytest.mark.parametrize("limit", [{"micro_batch": 1}, {"micro_tokens": 100}])
@pytest.mark.parametrize("kernels", ["fast", "plain"])
def test_micro_batches_give_the_same_update(
    tiny: Path, tmp_path: Path, limit: dict[str, int], kernels: str
) -> None:
    still = {"dropout": 0.0, "kernels": kernels}
    whole = Bench(tmp_path, tiny, adapter={"dropout": 0.0}, train=still).train()
    parts = Bench(tmp_path, tiny, adapter={"dropout": 0.0}, train=still | limit).train()
    assert parts.summary.loss == pytest.approx(whole.summary.loss, rel=1e-4)
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(parts.tensors[name], tensor, rtol=0.05, atol=2e-4)


@pytest.mark.parametrize(
    ("limit", "examples"),
    [
        ({"micro_batch": 0, "batch_size": 4}, 4),
        ({"micro_batch": 3, "batch_size": 4}, 3),
        ({"micro_batch": 9, "batch_size": 4}, 4),
        ({"batch_size": 64}, 20),  # the examples of the device without those for validation
        ({"micro_tokens": 100}, 2),
    ],
)
def test_size_of_a_forward_pass_is_told_before_the_first(
    tiny: Path, tmp_path: Path, limit: dict[str, int], examples: int
) -> None:
    calls: list[object] = []
    bench = Bench(tmp_path, tiny, train=limit, deterministic=True)
    bench.train(sized=calls.append, report=calls.append, report_every_s=0.0)
    assert calls[0] == examples and isinstance(calls[1], Measurement)


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [0.5, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.5]),
        ("cosine", [0.5, 1, 1, 0.5]),
    ],
)
def test_schedules(name: str, factors: list[float]) -> None:
    factor = schedule(TrainSpec(schedule=name, warmup_steps=2), 4)
    assert [factor(step) for step in range(4)] == pytest.approx(factors)


def test_rouge_known_answers() -> None:
    """Of 'the cat sat' and 'the cat ran fast': 2 of 3 and 2 of 4 words, F1 = 4/7."""
    one, two, longest = rouge("the cat sat", "the cat ran fast")
    assert (one, longest) == (pytest.approx(400 / 7), pytest.approx(400 / 7))
    assert two == pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert rouge("He runs daily", "he run daily")[0] == pytest.approx(100)
    assert rouge("a b", "") == (0, 0, 0)
    assert RougeScorer(["rouge1"], use_stemmer=True).score("a", "a")["rouge1"].fmeasure == 1
