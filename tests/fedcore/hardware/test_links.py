"""Link profiles are complete, plausible and sourced; impossible figures are refused."""

from __future__ import annotations

import math

import pytest

from fedcore.errors import SpecError
from fedcore.hardware.links import INSTANT, LINKS, Link

KINDS = [
    "nb-iot",
    "lte-m",
    "lte",
    "5g",
    "wifi-4",
    "wifi-5",
    "wifi-6",
    "dsl",
    "cable",
    "fibre",
    "ethernet-100m",
    "ethernet-1g",
    "satellite-leo",
    "satellite-geo",
    "instant",
    "lan",
    "wifi",
    "4g",
    "3g",
]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_link_is_there(name: str) -> None:
    link = LINKS[name]
    assert link.source
    assert 0 <= link.loss < 0.05
    assert link.down_s(1e6) >= link.delay_s
    assert link.up_s(2e6) >= link.up_s(1e6)


def test_links_are_ordered_by_speed() -> None:
    order = ("nb-iot", "lte-m", "lte", "5g", "fibre", "ethernet-1g", "instant")
    times = [LINKS[name].up_s(1e6) for name in order]
    assert times == sorted(times, reverse=True)


def test_seconds_and_dollars_of_a_transfer() -> None:
    link = Link(100.0, 400.0, 0.5, loss=0.2, cost_per_gb=2.0)
    assert link.up_s(800) == pytest.approx(0.5 + 10)
    assert link.down_s(800) == pytest.approx(0.5 + 2.5)
    assert link.cost(5e8) == 1.0
    assert INSTANT.up_s(1e12) == 0


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, True, "fast", None])
def test_link_without_rate_is_refused(bad: object) -> None:
    with pytest.raises(SpecError, match="above 0"):
        Link(bad, 1.0, 0.0)  # type: ignore[arg-type]


def test_link_errors_are_reported_together() -> None:
    with pytest.raises(SpecError) as caught:
        Link(0, -2, -0.1, loss=1.0, cost_per_gb=-1, name="van")
    assert [fault.path for fault in caught.value.faults] == [
        f"link van: {name}" for name in ("up_bps", "down_bps", "delay_s", "cost_per_gb", "loss")
    ]
