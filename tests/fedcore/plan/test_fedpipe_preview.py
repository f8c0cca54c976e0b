"""FedPipe's allocations before a job is launched, with their explanations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedcore.architecture.sizes import KNOWN
from fedcore.hardware.links import LINKS
from fedcore.hardware.profile import Hardware
from fedcore.plan.__main__ import main
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.planner import FleetPlan, plan_fleet
from fedcore.plan.report import as_text, fleet_values
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import LORA_TARGETS
from fedcore.spec.parse import parse_spec

BASE = KNOWN["google/flan-t5-base"]
FREE = LINKS["lan"]


def job(**method: float) -> JobSpec:
    return parse_spec(
        {
            "model": {"name": "google/flan-t5-base"},
            "adapter": {"rank": 16, "targets": LORA_TARGETS, "aggregation": "flexlora"},
            "train": {"local_steps": 10},
            "method": {"name": "fedpipe", **method},
        }
    )


def device(name: str, gigabytes: float, flops: float = 1e11) -> Candidate:
    hardware = Hardware({"fp32": flops}, 2e10, gigabytes * 1e9)
    return Candidate(name, hardware, 100, 200.0, 40.0, (512.0, 64.0), FREE)


def fleet(**method: float) -> FleetPlan:
    devices = [device("large", 32), device("small", 1.56), device("tiny", 0.5)]
    return plan_fleet(job(**method), BASE, devices)


def test_each_allocation_fits_its_device() -> None:
    large, small, tiny = fleet().devices
    assert large.fits and large.allocation is not None and large.allocation.score == 1.0
    assert small.fits and small.allocation is not None and 0 < small.allocation.score < 1
    assert small.memory.peak <= small.allocation.memory <= 0.9 * 1.56e9
    assert small.allocation.setting.base != "auto"
    assert not tiny.fits and "needs at least" in tiny.why and "may use 450 MB" in tiny.why
    assert "every matrix counts equally" in small.notes[0]


def test_device_uploads_its_ranks_and_downloads_the_model() -> None:
    large, small, _ = fleet().devices
    assert small.bytes_down == large.bytes_down
    assert small.allocation is not None
    part = sum(small.allocation.ranks.values()) / (16 * len(small.allocation.ranks))
    assert part < 1 and small.bytes_up < large.bytes_up


def test_a_time_budget_shortens_the_round() -> None:
    (free,) = plan_fleet(job(), BASE, [device("a", 32)]).devices
    (bound,) = plan_fleet(job(time_budget_s=60.0), BASE, [device("a", 32)]).devices
    assert free.seconds["train_s"] > 60.0 >= bound.seconds["train_s"]
    assert bound.allocation is not None and "would take" in bound.allocation.why


def test_allocation_is_in_json_and_text() -> None:
    plan = fleet()
    values = fleet_values(plan)["devices"]
    assert values[0]["planned"]["matrices"] == len(values[0]["planned"]["ranks"]) == 216
    assert values[1]["planned"]["base"] in ("bf16", "int8", "nf4")
    assert values[2]["planned"] is None
    json.dumps(values)
    text = as_text(plan)
    assert "small: all 216 matrices at rank 16 would need" in text
    assert "None of the changes" not in text


def test_other_jobs_have_no_allocation() -> None:
    plan = plan_fleet(JobSpec(), BASE, [device("large", 32)])
    assert plan.devices[0].allocation is None and plan.advised


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fleet.json").write_text(
        json.dumps({"device": [{"machine": "raspberry-pi-5", "link": "wifi", "examples": 100}]})
    )
    (tmp_path / "job.json").write_text(json.dumps(job(memory_budget_mb=1404.0).to_dict()))
    args = ["--devices", str(tmp_path / "fleet.json"), "--spec", str(tmp_path / "job.json")]
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert "of 1404 MB; it adapts" in shown and "before the probe" in shown
