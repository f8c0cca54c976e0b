"""The planner's PFIT: its FLOPs match the measured ones, its bytes token-by-token decoding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedcore.architecture.sizes import FP32_BYTES, KNOWN, architecture_of
from fedcore.hardware.links import LINKS
from fedcore.hardware.profile import Hardware
from fedcore.methods.session import Session
from fedcore.model.initial import write_initial
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.device_plan import DevicePlan
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.round import micro_batch_memory, plan_device
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from tests.fedcore.conftest import spec_of, write_jsonl

SMALL = KNOWN["google/flan-t5-small"]
MACHINE = Hardware({"fp32": 1e11}, 2e10, 16e9, 5.0, 20.0)
DEVICE = Candidate("a", MACHINE, 100, 200.0, 40.0, (512.0, 64.0), LINKS["wifi"])


def job(**groups: Any) -> JobSpec:
    method = {"name": "pfit", **groups.pop("method", {})}
    adapter = {"kind": "layers", **groups.pop("adapter", {})}
    train = {"precision": "fp32", "local_steps": 12, **groups.pop("train", {})}
    model = {"name": "google/flan-t5-small"}
    return parse_spec({"model": model, "method": method, "adapter": adapter,
                              "train": train, **groups})  # fmt: skip


def plan(device: Candidate = DEVICE, **groups: Any) -> DevicePlan:
    return plan_device(job(**groups), SMALL, device)


def step_s(**groups: Any) -> float:
    seconds = plan(**groups).step_s
    assert seconds is not None
    return seconds


@pytest.mark.parametrize("kind", ["layers", "lora"])
@pytest.mark.parametrize("method", [{}, {"anchor": 0.0, "passes": 3}, {"supervised_steps": 2}])
def test_flops_match_those_counted_in_training(
    tiny: Path, tmp_path: Path, kind: str, method: dict[str, Any]
) -> None:
    """Examples of equal lengths, and samples that all go on to the last token (nearly greedy)."""
    rows = [{"text": "anna keeps a red car at home", "summary": "anna keeps a car"}] * 24
    source = Source(str(write_jsonl(tmp_path / "rows.jsonl", rows)))
    options = {"name": "pfit", "samples": 3, "passes": 2, "temperature": 1e-4, **method}
    spec = spec_of(
        tiny, method=options, adapter={"kind": kind, "last_layers": 1},
        train={"local_steps": 5, "batch_size": 4, "learning_rate": 1e-6, "optimizer": "sgd"},
        data={"max_target_tokens": 5},
    )  # fmt: skip
    session, start = Session(tmp_path / "cache", 1), tmp_path / "g"
    write_initial(spec, start)
    lengths = set(session.prepare(spec, source).train.lengths)
    summary = session.train(spec, start, source, 1, 0).summary
    (length,) = lengths
    assert length[1] == 5
    sizes = architecture_of(str(tiny))
    assert sizes is not None
    device = Candidate("a", MACHINE, len(rows), *length, (float(length[0]), 5.0), LINKS["lan"])
    device_plan = plan_device(spec, sizes, device)
    assert device_plan.step is not None
    assert device_plan.steps == summary.steps == 5
    assert device_plan.step.flops * device_plan.steps == pytest.approx(summary.flops, rel=1e-9)


def test_each_token_reads_the_decoder_once_per_draw() -> None:
    """Half as many prompts at a time: all weights are read twice as often, nothing else changes."""
    steps, passes, samples, target = 12, 2, 2, 64
    fewer, more = (
        plan(train={"micro_batch": count}, method={"samples": 2, "anchor": 0.0, "passes": passes})
        for count in (4, 8)
    )
    assert fewer.step is not None and more.step is not None
    attention, forward = 4 * SMALL.d_model * SMALL.inner, 3 * SMALL.d_model * SMALL.d_ff
    encoder = FP32_BYTES * 8 * (attention + forward)
    decoder = FP32_BYTES * (8 * (2 * attention + forward) + SMALL.vocab * SMALL.d_model)
    draws = steps // passes * (encoder + (target + 1) * decoder)
    learning = steps * decoder * (1 + 2 * samples / 8)
    assert fewer.step.moved - more.step.moved == pytest.approx((draws + learning) * 2 / steps)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"method": {"samples": 2}}, {"method": {"samples": 8}}),
        ({"method": {"passes": 4}}, {"method": {"passes": 1}}),
        ({"method": {"anchor": 0.0}}, {}),
        ({"method": {"supervised_steps": 6}}, {}),
        ({}, {"adapter": {"kind": "lora"}}),
        ({"method": {"name": "none"}}, {"method": {"supervised_steps": 11}}),
    ],
)
def test_what_takes_less_time(less: dict[str, Any], more: dict[str, Any]) -> None:
    assert step_s(**less) < step_s(**more)


def test_longer_samples_cost_more_than_longer_prompts() -> None:
    """Twice the tokens: at least twice the reads of the decoder."""
    short, long = (
        plan_device(job(), SMALL, replace(DEVICE, target=20.0, longest=(512.0, tokens))).step
        for tokens in (32.0, 64.0)
    )
    assert short is not None and long is not None
    assert long.phases["forward_s"] > 1.5 * short.phases["forward_s"]
    assert long.flops == short.flops


def test_rewards_are_generated_before_and_after_training() -> None:
    """Three evaluations with the job's; PFTT has two."""
    plain = plan(method={"name": "none"}).seconds["evaluate_s"]
    assert plan().seconds["evaluate_s"] == pytest.approx(3 * plain)
    bottleneck = {"kind": "bottleneck"}
    shared = plan(method={"name": "none"}, adapter=bottleneck)
    personal = plan(method={"name": "pftt"}, adapter=bottleneck)
    assert personal.step is not None and shared.step is not None
    pace = (personal.step.seconds / personal.step.flops) / (shared.step.seconds / shared.step.flops)
    ratio = personal.seconds["evaluate_s"] / shared.seconds["evaluate_s"]
    assert ratio > 2 * pace  # the personal LoRA makes a pass a little longer as well


def test_reached_mfu_scales_training_and_evaluation() -> None:
    free = plan()
    assert free.step is not None
    scaled = plan(replace(DEVICE, mfu=free.step.mfu / 2))
    assert scaled.step_s == pytest.approx(2 * free.step.seconds)
    assert scaled.seconds["evaluate_s"] == pytest.approx(2 * free.seconds["evaluate_s"])


def test_an_unmeasured_machine_has_no_time() -> None:
    assert plan(replace(DEVICE, hardware=Hardware())).step is None


def method_of(spec: JobSpec) -> Workload:
    return Workload.of(spec, SMALL, "fp32")


def test_samples_are_halved_until_they_fit() -> None:
    spec = job(adapter={"kind": "lora"}, train={"batch_size": 32})
    work = BatchShape(32, 512.0, 64.0)
    peaks = [micro_batch_memory(spec, method_of(spec), work, limit) for limit in (None, 6e9, 1e6)]
    assert [peak.examples for peak in peaks] == [32, 16, 4]
    assert peaks[0].peak > 6e9 > peaks[1].peak


def test_sources_are_shared_and_the_anchor_is_a_copy() -> None:
    spec = job(adapter={"kind": "lora"}, method={"samples": 8})
    method, work = method_of(spec), BatchShape(8, 512.0, 64.0)
    estimate = micro_batch_memory(spec, method, work, None)
    plain = replace(method, kernels="plain", coefficients=plain_coefficients(method))
    assert estimate.parts["activations"] < 0.5 * memory(plain, work).parts["activations"]
    unanchored = job(adapter={"kind": "lora"}, method={"samples": 8, "anchor": 0.0})
    free = micro_batch_memory(unanchored, method, work, None)
    more = estimate.parts["weights"] - free.parts["weights"]
    assert more == FP32_BYTES * method.trained


def plain_coefficients(method: Workload) -> Any:
    return Workload.of(job(train={"kernels": "plain"}), method.sizes, "fp32").coefficients


def test_supervised_steps_use_whole_batches() -> None:
    """Where they are the larger ones, they decide."""
    spec = job(adapter={"kind": "lora"}, method={"supervised_steps": 2, "samples": 8},
               train={"checkpointing": False, "kernels": "plain"})  # fmt: skip
    work = BatchShape(8, 512.0, 16.0)
    estimate = micro_batch_memory(spec, method_of(spec), work, None)
    assert estimate.peak == memory(method_of(spec), work).peak


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fedcore.plan.__main__ import main

    row = {"name": "pi", "machine": "raspberry-pi-5", "link": "lan", "examples": 80}
    (tmp_path / "fleet.json").write_text(json.dumps({"device": [row]}))
    steps = []
    for name in ("none", "pfit"):
        values = {"method": {"name": name}, "adapter": {"kind": "layers"}}
        (tmp_path / "job.json").write_text(json.dumps(values))
        files = ["--devices", str(tmp_path / "fleet.json"), "--spec", str(tmp_path / "job.json")]
        assert main(["--model", "nano", *files, "--json"]) == 0
        (device,) = json.loads(capsys.readouterr().out)["devices"]
        steps.append(device["step_s"])
    assert steps[1] > 4 * steps[0]
