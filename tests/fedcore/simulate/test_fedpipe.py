"""FedPipe in a simulated federation: probed, planned, trained as planned, within its budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedcore.architecture.sizes import architecture_of
from fedcore.errors import SpecError
from fedcore.hardware.profile import Hardware
from fedcore.plan.cost.allocation import Allocation
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.fedpipe.allocate import allocate
from fedcore.plan.fedpipe.budget import Budget
from fedcore.simulate.__main__ import main
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import RoundResult, SimulationEvent
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import LORA_TARGETS
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from tests.fedcore.conftest import make_model, sentences, spec_of, write_jsonl

# Wide enough that adapters are a good part of what training needs.
WIDE = {"d_model": 128, "d_ff": 256, "d_kv": 32, "num_heads": 4}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "wide", **WIDE)


def job(model: Path, megabytes: float = 0.0, **changes: Any) -> JobSpec:
    method = {"name": "fedpipe", "memory_budget_mb": megabytes, **changes}
    adapter = {"rank": 16, "targets": LORA_TARGETS, "aggregation": "flexlora"}
    base_model = {"name": str(model), "base": "fp32"}
    return parse_spec(
        spec_of(model, adapter=adapter, method=method).to_dict() | {"model": base_model}
    )


@pytest.fixture
def devices(tmp_path: Path) -> dict[str, Source]:
    files = {
        name: write_jsonl(tmp_path / f"{name}.jsonl", sentences(seed, 24))
        for seed, name in enumerate(("a", "b"))
    }
    return {name: Source(str(path)) for name, path in files.items()}


Run = tuple[list[RoundResult], dict[str, Allocation]]


def run(spec: JobSpec, devices: Mapping[str, Source], folder: Path) -> Run:
    plans: dict[str, Allocation] = {}

    def keep(event: SimulationEvent) -> None:
        if isinstance(event.value, Allocation):
            plans[event.device] = event.value

    return simulate(spec, devices, folder, keep), plans


def test_devices_train_their_allocation(
    wide: Path, devices: dict[str, Source], tmp_path: Path
) -> None:
    sizes, longest = architecture_of(str(wide)), (32.0, 12.0)
    assert sizes is not None
    device = Candidate("any", Hardware(), 1, *longest, longest)
    most = allocate(job(wide), sizes, device, {}, Budget()).memory / 1e6
    with pytest.raises(SpecError) as refused:
        allocate(job(wide), sizes, device, {}, Budget(1.0))
    least = float(str(refused.value).split("at least ")[1].split(" MB")[0])
    budget = least + 0.3 * (most - least)
    results, plans = run(job(wide, budget), devices, tmp_path / "tight")
    for choice in plans.values():
        assert choice.memory <= budget * 1e6
        assert 0 < choice.score < 1
        assert "would need" in choice.why
    assert plans["a"].ranks != plans["b"].ranks, "their data differ, and so do their scores"
    assert results[-1].sha256 != results[0].sha256


def test_impossible_budget_is_refused_before_training(
    wide: Path, devices: dict[str, Source], tmp_path: Path
) -> None:
    seen: list[str] = []
    with pytest.raises(SpecError) as refused:
        simulate(job(wide, 1.0), devices, tmp_path, lambda event: seen.append(event.kind))
    assert [str(fault).split(":")[0] for fault in refused.value.faults] == ["a, b"]
    assert "trained" not in seen


def test_time_budget_is_refused_in_simulation(
    wide: Path, devices: dict[str, Source], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="have no speed"):
        run(job(wide, time_budget_s=1.0), devices, tmp_path)


def test_command_fills_in_required_options(
    tiny: Path, rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        [
            "--data", str(rows_file), "--model", str(tiny), "--method", "fedpipe", "--rank", "2",
            "--devices", "2", "--rounds", "1", "--local-steps", "1", "--batch-size", "2",
            "--threads", "1", "--precision", "fp32", "--max-source-tokens", "32",
            "--max-target-tokens", "12", "--max-validation-examples", "2",
            "--workdir", str(tmp_path / "work"),
        ]
    )  # fmt: skip
    assert code == 0
    output = capsys.readouterr().out
    assert "plan   device-0: no compromise: all 36 matrices at rank 2" in output
