"""Laws of the planner: memory, bytes, time, waiting, and the best change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from fedcore.architecture.sizes import KNOWN
from fedcore.formats.codec_chain import Chain
from fedcore.hardware.links import INSTANT, LINKS
from fedcore.hardware.profile import Hardware, Kernel, hardware_of
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.coefficients import SHAPE_SHARE
from fedcore.plan.cost.device_plan import DevicePlan
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.round import plan_device
from fedcore.plan.cost.step_time import product_rate, step
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.plan.planner import FleetPlan, plan_fleet
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

SMALL, BASE, XL = (KNOWN[f"google/flan-t5-{name}"] for name in ("small", "base", "xl"))
MACHINE = Hardware(
    {"fp32": 1e11, "bf16": 4e11}, 2e10, 16e9, 5.0, 20.0,
    measured=frozenset({"peak_flops", "full_watts", "idle_watts"}),
)  # fmt: skip


def spec(**groups: Any) -> JobSpec:
    return parse_spec({"model": {"name": "google/flan-t5-small"}, **groups})


def device(name: str = "a", hardware: Hardware = MACHINE, **changes: Any) -> Candidate:
    candidate = Candidate(name, hardware, 100, 200.0, 40.0, (512.0, 64.0), LINKS["wifi"])
    return replace(candidate, **changes)


def method(**groups: Any) -> Workload:
    made = spec(**groups)
    return Workload.of(
        made, SMALL, made.train.precision if made.train.precision != "auto" else "bf16"
    )


WORK = BatchShape(8, 300, 50)


def peak(**groups: Any) -> float:
    return memory(method(**groups), WORK).peak


def test_memory_is_the_sum_of_named_parts() -> None:
    estimate = memory(method(), WORK)
    assert list(estimate.parts) == [
        "weights", "gradients", "optimizer", "activations", "logits", "workspace", "runtime",
    ]  # fmt: skip
    assert estimate.training == sum(estimate.parts.values())
    assert estimate.peak >= estimate.training
    assert all(part >= 0 for part in estimate.parts.values())


def test_weights_gradients_and_moments_are_counted() -> None:
    full = memory(method(adapter={"kind": "full"}, train={"precision": "fp32"}), WORK).parts
    assert full["weights"] == full["gradients"] == 4 * SMALL.parameters()
    assert full["optimizer"] == 8 * SMALL.parameters()
    lora = memory(method(train={"precision": "fp32"}), WORK).parts
    assert lora["gradients"] == 4 * SMALL.lora_parameters(8, ("q", "v"))


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"model": {"base": "nf4"}}, {"model": {"base": "int8"}}),
        ({"model": {"base": "int8"}}, {"model": {"base": "bf16"}}),
        ({"model": {"base": "bf16"}}, {"model": {"base": "fp32"}}),
        ({"train": {"precision": "bf16"}}, {"train": {"precision": "fp32"}}),
        ({}, {"adapter": {"kind": "full"}}),
        ({"adapter": {"rank": 4}}, {"adapter": {"rank": 64}}),
        ({"train": {"checkpointing": True}}, {}),
        ({"train": {"kernels": "fast"}}, {"train": {"kernels": "plain"}}),
    ],
)  # fmt: skip
def test_what_needs_less_memory(less: dict[str, Any], more: dict[str, Any]) -> None:
    name = {"name": "google/flan-t5-small"}
    few = {**less, "model": {**name, **less.get("model", {})}}
    many = {**more, "model": {**name, **more.get("model", {})}}
    assert peak(**few) < peak(**many)


@pytest.mark.parametrize("kernels", ["fast", "plain"])
def test_memory_grows_with_examples_and_lengths(kernels: str) -> None:
    made = method(train={"kernels": kernels})
    grows = [memory(made, BatchShape(n, s, t)).training for n, s, t in
             ((1, 100, 20), (2, 100, 20), (2, 200, 20), (2, 200, 60))]  # fmt: skip
    assert grows == sorted(grows)
    assert len(set(grows)) == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_more_memory_never_fits_less(precision: str) -> None:
    made = spec(train={"precision": precision}, adapter={"kind": "full"})
    fits = [plan_device(made, BASE, device(hardware=replace(MACHINE, memory_bytes=gb * 1e9))).fits
            for gb in (0.2, 0.5, 1, 2, 4, 8, 16, 32)]  # fmt: skip
    assert fits == sorted(fits)
    assert fits[0] is False
    assert fits[-1] is True


def test_micro_batch_is_halved_until_it_fits() -> None:
    made = spec(train={"batch_size": 64})
    small = plan_device(made, SMALL, device(hardware=replace(MACHINE, memory_bytes=2.5e9)))
    large = plan_device(made, SMALL, device(hardware=replace(MACHINE, memory_bytes=64e9)))
    assert small.fits
    assert small.micro_batch < large.micro_batch == 64
    job = spec(train={"batch_size": 64, "micro_batch": 64})
    refused = plan_device(job, SMALL, device(hardware=replace(MACHINE, memory_bytes=2.5e9)))
    assert "needs about" in refused.why


@pytest.mark.parametrize("name", ["fp32", "bf16", "int8", "int4"])
def test_bytes_are_those_of_the_codecs(name: str) -> None:
    numbers = SMALL.lora_parameters(8, ("q", "v"))
    wire = {"uplink": name, "downlink": name}
    plan = plan_device(spec(wire=wire), SMALL, device())
    assert plan.bytes_up == plan.bytes_down == Chain(name).payload(numbers)[1]
    assert plan.seconds["upload_s"] == LINKS["wifi"].up_s(plan.bytes_up)


def test_scaffold_server_control_is_downloaded() -> None:
    train = {"optimizer": "sgd", "local_steps": 4}
    plain, scaffold = (
        plan_device(spec(train=train, strategy={"name": name}), SMALL, device())
        for name in ("fedavg", "scaffold")
    )
    assert (scaffold.bytes_down, scaffold.bytes_up) == (2 * plain.bytes_down, plain.bytes_up)


def test_auto_sends_fewer_bytes_over_a_slow_link() -> None:
    slow = plan_device(spec(), SMALL, device(link=LINKS["nb-iot"]))
    fast = plan_device(spec(), SMALL, device(link=LINKS["lan"]))
    assert (fast.codec, slow.codec) == ("fp32", "int4")
    assert slow.bytes_up < fast.bytes_up


def test_a_measured_mfu_wins() -> None:
    plan = plan_device(spec(), SMALL, device(mfu=0.123))
    assert plan.step is not None
    assert plan.step.mfu == pytest.approx(0.123)
    assert plan.step.seconds == pytest.approx(plan.step.flops / (0.123 * 4e11))


def test_slower_machine_takes_longer_and_stays_below_peak() -> None:
    slower = replace(MACHINE, peak_flops={"fp32": 5e10, "bf16": 1e11})
    times = [step(method(), hardware, WORK) for hardware in (MACHINE, slower)]
    assert times[0] is not None and times[1] is not None
    assert times[0].seconds < times[1].seconds
    assert 0 < times[0].mfu < 1
    assert step(method(), Hardware(), WORK) is None
    again = step(method(train={"checkpointing": True}), MACHINE, WORK)
    assert again is not None
    assert again.phases["backward_s"] > times[0].phases["backward_s"]
    assert again.flops == times[0].flops


def test_measured_kernels_override_the_peak() -> None:
    rows = [("linear 512x1024", "bf16", 1e11), ("norm 512", "bf16", 1e8), ("linear 1", "fp32", 1.0)]
    kernels = tuple(Kernel(name, kind, rate, 9.0) for name, kind, rate in rows)
    assert product_rate(replace(MACHINE, kernels=kernels), "bf16") == 1e11
    assert product_rate(MACHINE, "bf16") == pytest.approx(SHAPE_SHARE * 4e11)


def test_accelerator_uses_plain_kernels() -> None:
    assert Workload.of(spec(), SMALL, "bf16", accelerator=True).kernels == "plain"
    assert Workload.of(spec(), SMALL, "bf16").kernels == "fast"


def test_micro_batch_respects_the_token_limit() -> None:
    made = spec(train={"batch_size": 8, "micro_tokens": 1200})
    plan = plan_device(made, SMALL, device())
    assert plan.micro_batch == 2  # of 576 tokens each
    assert plan.steps == plan_device(spec(), SMALL, device()).steps


def fleet(made: JobSpec, *devices: Candidate) -> FleetPlan:
    return plan_fleet(made, SMALL, devices)


def of(plan: FleetPlan, name: str) -> DevicePlan:
    return next(row for row in plan.devices if row.name == name)


def test_round_waits_for_its_slowest_device() -> None:
    slow = replace(MACHINE, peak_flops={"fp32": 1e10})
    plan = fleet(spec(), device("fast"), device("slow", slow))
    assert plan.slowest == "slow"
    assert plan.round_s == of(plan, "slow").busy_s
    assert of(plan, "slow").seconds["wait_s"] == 0
    fast = of(plan, "fast")
    assert sum(fast.seconds.values()) == pytest.approx(plan.round_s)
    joules = fast.energy
    assert joules.waiting_j == pytest.approx(5.0 * fast.seconds["wait_s"])
    assert joules.compute_j == pytest.approx(
        20.0 * (fast.seconds["train_s"] + fast.seconds["evaluate_s"])
    )
    assert joules.complete


def test_no_energy_without_power_figures() -> None:
    plan = fleet(spec(), device(hardware=replace(MACHINE, idle_watts=None, full_watts=None)))
    assert plan.devices[0].energy.total_j is None
    assert plan.total_j is None


def test_granularity() -> None:
    plan = plan_device(spec(), SMALL, device())
    travelling = plan.seconds["download_s"] + plan.seconds["upload_s"]
    assert plan.granularity == pytest.approx(plan.seconds["train_s"] / travelling)
    assert plan_device(spec(), SMALL, device(link=INSTANT)).granularity == math.inf


@pytest.mark.parametrize(
    ("made", "link", "expected"),
    [
        (spec(train={"precision": "fp32"}), "lan", "bf16"),
        (spec(adapter={"kind": "full"}, wire={"uplink": "fp32"}), "lte-m", "near"),
        (spec(train={"precision": "bf16"}), "lan", "fewer-steps"),
    ],
)
def test_best_change_is_planned_again(made: JobSpec, link: str, expected: str) -> None:
    plan = fleet(made, device(link=LINKS[link]))
    assert plan.best is not None
    assert plan.best.change.id == expected
    changed = plan.best.change.apply(made, [device(link=LINKS[link])])
    assert changed is not None
    assert plan_fleet(changed[0], SMALL, changed[1]).round_s == plan.best.round_s
    assert plan.round_s is not None
    assert plan.best.saved == pytest.approx(1 - (plan.best.round_s or 0) / plan.round_s)


def test_fitting_another_device_outranks_saved_time() -> None:
    tight = replace(MACHINE, memory_bytes=3.4e9)
    made = parse_spec({"adapter": {"kind": "full"}, "train": {"precision": "fp32"}})
    plan = plan_fleet(made, BASE, [device(hardware=tight)])
    assert not plan.fitting
    assert plan.best is not None
    assert plan.best.fitting == 1


def test_buffered_job_does_not_wait() -> None:
    slow = replace(MACHINE, peak_flops={"fp32": 1e10})
    made = spec(participation={"mode": "buffered", "buffer_size": 2})
    plan = fleet(made, device("fast"), device("slow", slow))
    assert {row.seconds["wait_s"] for row in plan.devices} == {0}
    assert plan.round_s is not None and plan.round_s < (of(plan, "slow").busy_s or 0)


def test_unmeasured_device_is_noted() -> None:
    plan = fleet(spec(), device(hardware=hardware_of({"cpu": "AMD EPYC"}), link=None))
    assert plan.round_s is None
    assert "measure the device" in plan.devices[0].notes[0]
