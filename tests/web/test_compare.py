"""Comparison of devices: scales, sources, reference, and a constant number of queries."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.web import factories, measured
from webapp.common import csv_file
from webapp.devices.models import Device
from webapp.jobs.models import Job
from webapp.pages.devices.columns import scale_of
from webapp.pages.devices.comparison import compare

pytestmark = pytest.mark.postgresql

PAGE = "devices-compare"


def test_scale_is_logarithmic_for_wide_ranges_only() -> None:
    near = scale_of([40.0, 90.0, None])
    assert not near.is_log
    assert near.share(45.0) == pytest.approx(0.5)
    far = scale_of([2e9, 9e14])
    assert far.is_log
    assert (far.low, far.high) == (1e9, 1e15)
    assert far.share(1e12) == pytest.approx(0.5)
    assert far.share(None) is None
    assert scale_of([]).share(3.0) == 0.0


def test_measured_peak_wins_over_data_sheet(db: None) -> None:
    sheet = Device(name="bare", profile={"kind": "Raspberry Pi 5 Model B"})
    probed = Device(name="probed", profile={**sheet.profile, "peak_flops": {"fp32": 41e9}})
    absurd = {"peak_flops": {"fp32": -1}, "memory_bandwidth_bps": "x"}
    implausible = Device(name="odd", profile=absurd)
    comparison = compare([implausible, sheet, probed], {}, "a100", "peak")
    by_name = {row.device.name: row.figures["peak"] for row in comparison.rows}
    assert by_name["bare"].source == "data sheet"
    assert (by_name["probed"].source, by_name["probed"].value) == ("measured", 41e9)
    assert by_name["odd"].value is None
    assert comparison.rows[-1].device.name == "odd"
    assert "the 2 with a known peak" in comparison.summary
    assert comparison.headers[0].reference == 312e12


def test_summary_names_a_clear_winner_only() -> None:
    def summary(*peaks: float) -> str:
        devices = [
            Device(name=f"pi-{number}", profile={"peak_flops": {"fp32": peak}})
            for number, peak in enumerate(peaks)
        ]
        return compare(devices, {}, "a100").summary

    assert summary(40e9, 41e9).startswith("All are about equal, at most 41.0 GFLOP/s; all 2 ")
    assert summary(40e9, 80e9).startswith("pi-1 is the fastest with 80.0 GFLOP/s")
    assert summary(40e9).startswith("pi-0 reaches 40.0 GFLOP/s")


def test_comparison_shows_every_device_and_the_reference(ada: Client, fleet: list[Device]) -> None:
    job = measured.measured_job(fleet, rounds=2)
    text = ada.get(reverse(PAGE), {"job": str(job.pk), "sort": "tokens"}).content.decode()
    table = text.split("<tbody>")[1]
    order = [table.index(f">{name}<") for name in ("jetson-lab", "nuc-office", "pi-kitchen")]
    assert order == sorted(order)
    assert "NVIDIA H200" in table
    assert "estimated" in table
    assert 'style="' not in text


def test_comparison_warns_of_mixed_models(ada: Client, fleet: list[Device]) -> None:
    measured.measured_job(fleet[:1], rounds=2)
    measured.measured_job(fleet[1:], rounds=2, adapter={"kind": "full"})
    assert "2 different models or adapters" in ada.get(reverse(PAGE)).content.decode()


def test_empty_comparison_offers_enrolment(ada: Client) -> None:
    assert "Enrol a device" in ada.get(reverse(PAGE)).content.decode()


@pytest.mark.parametrize("query", [{"job": "x"}, {"job": "0" * 32}, {"sort": "?"}, {"page": "-9"}])
def test_comparison_ignores_invalid_queries(
    ada: Client, fleet: list[Device], query: dict[str, str]
) -> None:
    assert "jetson-lab" in ada.get(reverse(PAGE), query).content.decode()


def test_comparison_queries_do_not_grow_with_devices(
    ada: Client, django_assert_max_num_queries: Any
) -> None:
    devices = [factories.make_device(f"device-{n:03d}", n) for n in range(110)]
    measured.measured_job(devices[:8], rounds=1)
    with django_assert_max_num_queries(10):
        text = ada.get(reverse(PAGE)).content.decode()
    assert "1 of 2" in text


def test_comparison_csv_escapes_formulas(ada: Client, fleet: list[Device]) -> None:
    job = measured.measured_job(fleet, rounds=2)
    Job.objects.filter(pk=job.pk).update(name="=HYPERLINK()")
    answer = ada.get(reverse("api-device-comparison-csv"), {"reference": "h100"})
    assert answer["Content-Type"].startswith("text/csv")
    head, card, *rows = csv.reader(io.StringIO(answer.content.decode()))
    assert card[0].startswith("NVIDIA H100")
    jetson = dict(zip(head, next(row for row in rows if row[0] == "jetson-lab"), strict=True))
    assert jetson["job"] == "'=HYPERLINK()"
    assert float(jetson["tokens_value"]) == pytest.approx(5200, rel=1e-3)
    payload = ada.get(reverse("api-device-comparison")).json()
    jetson_row = next(row for row in payload["devices"] if row["name"] == "jetson-lab")
    assert jetson_row["eta"] == {
        "value": pytest.approx(5200 / 21, rel=1e-3),
        "source": "measured",
        "note": "",
    }
    assert payload["units"]["eta"] == "tokens/s/W"


def test_csv_cells() -> None:
    assert csv_file.csv_text([["a,b", None, -1.5, "-1"]]) == '"a,b",,-1.5,\'-1\r\n'
