"""Bounds of energy and network figures."""

from __future__ import annotations

from typing import Any

import pytest

from webapp.common.metric_definitions import faults_of, report_faults

pytestmark = pytest.mark.postgresql

PARTS = {"compute_j": 80.0, "communication_j": 15.0, "waiting_j": 5.0}


@pytest.mark.parametrize("total", ["energy_j", "energy_estimated_j"])
def test_energy_parts_must_sum_to_total(total: str) -> None:
    assert report_faults({total: 100.0, **PARTS}) == []
    assert report_faults({total: 100.9, **PARTS}) == [], "rounded by whoever reports"
    assert report_faults({total: 100.0}) == []
    assert report_faults({}) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"energy_j": 200.0, **PARTS}, "energy_j is 200 J where"),
        ({"energy_j": 85.0, "compute_j": 80.0, "waiting_j": 1.0}, "sum to 81 J"),
        (PARTS, "need one of energy_j and energy_estimated_j"),
        ({"energy_j": 100.0, "energy_estimated_j": 100.0, **PARTS}, "need one of"),
        ({"energy_j": -1.0}, "energy_j must be from 0"),
        ({"energy_j": float("nan")}, "energy_j must be from 0"),
        ({"waiting_j": "much"}, "waiting_j must be a number"),
        ({"energy_j": 1e12}, "not 1000000000000.0"),
        ({"rtt_s": 86_400.0}, "rtt_s must be from 0 to 600"),
        ({"retransfer_bytes": -5}, "retransfer_bytes must be from 0"),
        ({"net_up_bytes": True}, "net_up_bytes must be a number"),
    ],
)
def test_invalid_report_values_are_refused(values: dict[str, Any], message: str) -> None:
    assert any(message in fault for fault in report_faults(values)), report_faults(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("watts", -0.1),
        ("watts", 50_000.0),
        ("watts_estimated", float("inf")),
        ("energy_j", -3.0),
        ("energy_estimated_j", 1e15),
        ("rtt_s", -0.01),
        ("rtt_s", 601.0),
        ("retransfer_bytes", -1),
        ("joules", 1.0),
    ],
)
def test_invalid_sample_values_are_refused(name: str, value: float) -> None:
    assert len(faults_of({name: value, "loss": 1.0})) == 1


def test_valid_samples_are_accepted() -> None:
    values = {"watts": 8.7, "energy_j": 8.7, "rtt_s": 1.6, "retransfer_bytes": 0, "net_up_bps": 9e3}
    assert faults_of(values) == []
