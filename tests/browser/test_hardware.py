"""Hardware charts: phases, efficiency, roofline; comparison; printed report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Window
from tests.browser.server import Site

pytestmark = pytest.mark.browser

# The chart of a title, once it is drawn: {label: [values]}.
CHART_DATA = """title => {
  const head = [...document.querySelectorAll('.chart h3')].find(h => h.textContent === title);
  head.scrollIntoView();
  const chart = Chart.getChart(head.closest('.chart').querySelector('canvas'));
  if (!chart || !chart.data.datasets.length) return null;
  return {labels: chart.data.labels, types: Object.values(chart.scales).map(s => s.type),
    sets: Object.fromEntries(chart.data.datasets.map(d => [d.label, d.data]))};
}"""


@pytest.fixture(scope="module")
def measured_job(site: Site, fleet: list[int]) -> str:
    tab: str = site.do("measured_job", devices=fleet, rounds=2, name="all is measured")
    return tab


def chart_data(tab: Window, title: str) -> Any:
    return tab.until(title, f"({CHART_DATA})('{title}')")


def test_phase_chart_by_device_and_by_round(
    window: Callable[..., Window], site: Site, measured_job: str
) -> None:
    tab = window()
    page = tab.go(f"/jobs/{measured_job}/")
    chart = chart_data(tab, "Where the time goes")
    assert chart["labels"] == ["pi-kitchen", "jetson-lab", "nuc-office"]
    # The last device still trains in round 2: the samples of that are in its bar already.
    tab.until(
        "samples of the training under way",
        f"({CHART_DATA})('Where the time goes').sets.forward[2] > 0.27 * 40 * 0.53 + 3",
    )
    page.click("button:text('By round')")
    assert chart_data(tab, "Where the time goes")["labels"] == ["round 1", "round 2"]


def test_estimated_efficiency_is_marked(window: Callable[..., Window], measured_job: str) -> None:
    tab = window()
    page = tab.go(f"/jobs/{measured_job}/")
    sets = chart_data(tab, "Energy efficiency ηₑ")["sets"]
    assert set(sets) == {"jetson-lab", "nuc-office estimated"}
    rows = page.locator("#device-rows tr")
    expect(rows.nth(0)).to_contain_text("no power sensor")
    expect(rows.nth(1)).to_contain_text("tokens/s/W")
    expect(rows.nth(2)).to_contain_text("estimated")
    granularity = chart_data(tab, "Compute : network (G)")["sets"]
    assert [point["x"] for point in granularity["All devices"]] == [1, 2]


def test_efficiency_chart_without_power_sensor(window: Callable[..., Window], job: str) -> None:
    tab = window()
    page = tab.go(f"/jobs/{job}/")
    page.locator("h3:text('Energy efficiency')").scroll_into_view_if_needed()
    page.wait_for_selector(".chart-message:text('No power sensor on these devices.')")


def test_job_header_has_no_trailing_dots(window: Callable[..., Window], job: str) -> None:
    tab = window(width=390)
    page = tab.go(f"/jobs/{job}/")
    after = "e => getComputedStyle(e, '::after').content"
    ends = page.evaluate(f"[...document.querySelectorAll('.sentence > *')].map({after})")
    assert set(ends) == {"none"}


def test_roofline_is_logarithmic_with_kernels(
    window: Callable[..., Window], fleet: list[int], measured_job: str
) -> None:
    tab = window()
    page = tab.go(f"/devices/{fleet[1]}/")
    chart = chart_data(tab, "Roofline")
    assert chart["types"] == ["logarithmic", "logarithmic"]
    assert len(chart["sets"]["kernels"]) == 5
    assert "latest training" in chart["sets"]
    expect(page.locator("main")).to_contain_text("INA3221")
    expect(page.locator("main")).to_contain_text("Best improvement")


def test_comparison_of_one_job(window: Callable[..., Window], measured_job: str) -> None:
    tab = window()
    page = tab.go("/devices/compare/")
    page.select_option("#job", label="all is measured")
    page.wait_for_url("**job=*")
    page.select_option("#sort", "tokens")
    page.wait_for_selector("#comparison tbody tr:nth-child(2):has-text('jetson-lab')")
    page.select_option("#reference", "a100")
    page.wait_for_selector("#comparison .reference:has-text('A100')")


def test_printed_report_has_no_controls(
    window: Callable[..., Window], site: Site, measured_job: str
) -> None:
    tab = window(theme="dark", width=720)
    page = tab.go(f"/jobs/{measured_job}/report/")
    expect(page.locator("[data-print]")).to_be_visible()
    page.emulate_media(media="print")
    expect(page.locator("[data-print]")).to_be_hidden()
    expect(page.locator("header.bar")).to_be_hidden()
    white = "getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'"
    tab.until("white paper", white)
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
