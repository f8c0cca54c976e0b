"""Downloads under rules that change the base: the planner's bytes match a simulation's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedcore.architecture.sizes import FP32_BYTES, KNOWN, architecture_of
from fedcore.formats.frame_header import read_header
from fedcore.hardware.links import LINKS
from fedcore.hardware.profile import Hardware
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.merged_base import growth
from fedcore.plan.planner import FleetPlan, plan_fleet
from fedcore.plan.report import as_text, fleet_values
from fedcore.simulate.federation import simulate
from fedcore.simulate.results import global_file
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import AdapterSpec
from fedcore.spec.parse import parse_spec
from fedcore.train.datasets import Source
from tests.fedcore.conftest import sentences, spec_of, write_jsonl

SMALL = KNOWN["google/flan-t5-small"]
MACHINE = Hardware({"fp32": 1e11, "bf16": 4e11}, 2e10, 16e9, 5.0, 20.0)


def device(name: str, **changes: Any) -> Candidate:
    hardware = changes.get("hardware", MACHINE)
    return Candidate(name, hardware, 30, 20.0, 8.0, (32.0, 12.0), LINKS["wifi"])


def planned(spec: JobSpec, model: Path, names: list[str]) -> FleetPlan:
    sizes = architecture_of(str(model))
    assert sizes is not None
    return plan_fleet(spec, sizes, [device(name) for name in names], advise=False)


@pytest.mark.parametrize(
    ("adapter", "participation"),
    [
        ({"aggregation": "stack"}, {}),
        ({"aggregation": "stack", "ranks": ["1", "2"], "modules": ["q+v", "v", "q"]}, {}),
        ({"aggregation": "fedex"}, {}),
        ({"aggregation": "fedit"}, {}),
        ({"aggregation": "stack", "rank": 3}, {"fraction": 0.6}),
    ],
)
def test_growth_matches_a_simulation(
    tiny: Path, tmp_path: Path, adapter: dict[str, Any], participation: dict[str, Any]
) -> None:
    """The smaller side of tiny's matrices, 24, is passed on the way."""
    spec = spec_of(
        tiny, rounds=6, adapter=adapter, participation=participation,
        train={"local_steps": 3, "learning_rate": 0.05},
    )  # fmt: skip
    rows = sentences(1, 36)
    devices = {
        name: Source(str(write_jsonl(tmp_path / f"{name}.jsonl", rows[at : at + 12])))
        for at, name in ((0, "attic"), (12, "barn"), (24, "cellar"))
    }
    results = simulate(spec, devices, tmp_path / "work")
    members = 2 if participation else 3
    plan = planned(spec, tiny, sorted(devices))
    fetched = []
    for result in results[1:]:
        path = global_file(tmp_path / "work", result.number - 1)
        header = read_header(path)
        assert result.bytes_down == members * path.stat().st_size
        fetched.append(sum(FP32_BYTES * entry.elements for entry in header.tensors.values()))
    one = plan.devices[0]
    assert one.bytes_down * spec.rounds == pytest.approx(sum(fetched), abs=spec.rounds)
    assert one.bytes_down_last == fetched[-1]
    assert (one.bytes_down_last > one.bytes_down) is (adapter["aggregation"] != "fedit")
    assert plan.updates == members
    ups = [row.bytes_up for row in plan.devices]
    total = members * sum(fetched) + spec.rounds * members * sum(ups) / len(ups)
    assert plan.total_bytes == pytest.approx(total, abs=members * spec.rounds)


def test_devices_upload_their_own_ranks(tiny: Path) -> None:
    names = ["a", "b", "c"]
    adapter = {"aggregation": "flexlora", "rank": 4, "ranks": ["1", "b=4", "2"], "alpha": 4}
    plan = planned(spec_of(tiny, adapter=adapter), tiny, names)
    up = {row.name: row.bytes_up for row in plan.devices}
    assert up["b"] == 4 * up["a"] == 4 * up["c"]  # slots 0 and 2 are in turn 1 and 1
    assert {row.bytes_down for row in plan.devices} == {up["b"]}


def test_auto_ranks_are_planned_as_assigned() -> None:
    slow = Hardware({"fp32": 1e10}, 2e10, 16e9)
    spec = parse_spec({
        "model": {"name": "google/flan-t5-small"},
        "adapter": {"aggregation": "flexlora", "ranks": ["auto"]}, "wire": {"uplink": "fp32"},
    })  # fmt: skip
    fast, late = plan_fleet(spec, SMALL, [device("fast"), device("late", hardware=slow)]).devices
    assert fast.bytes_up == 8 * late.bytes_up  # 40 times slower: 8 becomes 1
    assert fast.bytes_down == late.bytes_down


def test_invalid_overrides_are_reported_per_device() -> None:
    entry = "encoder.block.0.layer.0.SelfAttention.q=8"
    spec = parse_spec({
        "model": {"name": "google/flan-t5-small"},
        "adapter": {"aggregation": "flexlora", "ranks": ["pi=4"], "pattern": [entry]},
    })  # fmt: skip
    other, pi = plan_fleet(spec, SMALL, [device("other"), device("pi")]).devices
    assert other.fits and not pi.fits
    assert "adapter.pattern" in pi.why


@pytest.mark.parametrize("rounds", [1, 2, 6, 7, 400])
@pytest.mark.parametrize("ranks", [[1], [64, 3], [64] * 6, [48, 16]])
def test_the_mean_is_that_of_the_rounds(rounds: int, ranks: list[int]) -> None:
    spec = parse_spec({
        "model": {"name": "google/flan-t5-small"}, "rounds": rounds,
        "adapter": {"aggregation": "stack", "rank": 64, "targets": ["q"]},
    })  # fmt: skip
    result = growth(spec, SMALL, [AdapterSpec(rank=rank, targets=("q",)) for rank in ranks])
    each = 4 * (512 + 384) * 24  # 8 matrices of the encoder, 16 of the decoder
    sizes = [each * min(384, sum(ranks) * number) for number in range(rounds)]
    assert result.mean == pytest.approx(sum(sizes) / rounds)
    assert result.last == sizes[-1]


def test_growth_is_in_text_and_json(tiny: Path) -> None:
    spec = spec_of(tiny, rounds=9, adapter={"aggregation": "stack"})
    plan = planned(spec, tiny, ["a", "b"])
    assert "The download grows to" in as_text(plan)
    values = fleet_values(plan)
    row = values["devices"][0]
    assert row["bytes_down_last"] > row["bytes_down"]
    assert values["total_bytes"] == 9 * 2 * (row["bytes_down"] + row["bytes_up"])
    still = planned(spec_of(tiny), tiny, ["a"])
    assert "grows" not in as_text(still)
