"""Why a device does no work, and what the site lacks, appear without a reload."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Window
from tests.browser.server import Site
from tests.browser.test_every_page import serious_violations

pytestmark = pytest.mark.browser

FULL = {"disk_free_bytes": 12_340_000, "disk_full": True}
REASON = "Connected, but its disk is full (12.3 MB free)"


@pytest.fixture
def device(site: Site, fleet: list[int]) -> Iterator[int]:
    yield fleet[0]
    site.do("report_health", device=fleet[0], disk_free_bytes=9_000_000_000)
    site.do("run_coordinator")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_reason_comes_and_goes_on_device_pages(
    window: Callable[..., Window], site: Site, device: int, theme: str
) -> None:
    tabs = [window(theme=theme), window(theme=theme, width=390)]
    for tab, path in zip(tabs, ("/devices/", f"/devices/{device}/"), strict=True):
        page = tab.go(path)
        row = page.locator(f"[data-device='{device}'], [data-device-page='{device}']")
        expect(row.locator("[data-reason]")).to_be_hidden()
        site.do("report_health", device=device, **FULL)
        expect(row.locator("[data-reason]")).to_have_text(REASON)
        expect(row.locator("[data-presence] .state")).to_have_attribute("data-tone", "wait")
        assert not serious_violations(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        site.do("report_health", device=device, disk_free_bytes=9_000_000_000)
        expect(row.locator("[data-reason]")).to_be_hidden()


def test_reason_is_in_the_jobs_table(
    window: Callable[..., Window], site: Site, device: int, job: str
) -> None:
    page = window().go(f"/jobs/{job}/")
    row = page.locator("#device-rows tr").first
    site.do("report_health", device=device, **FULL)
    expect(row.locator("[data-field='ability']")).to_have_text(REASON)
    expect(row.locator("[data-field='presence']")).to_have_attribute("data-tone", "wait")
    site.do("stop_coordinator", seconds_ago=300)
    expect(page.locator("[data-job='headline']")).to_contain_text("The coordinator has not run for")
    site.do("run_coordinator")
    expect(page.locator("[data-job='headline']")).not_to_contain_text("coordinator")


@pytest.mark.parametrize("width", [390, 1280])
def test_banner_names_what_the_site_lacks(
    window: Callable[..., Window], site: Site, device: int, width: int
) -> None:
    page = window(width=width).go("/devices/")
    banner = page.locator("#site-state")
    expect(banner).to_be_hidden()
    site.do("stop_coordinator", seconds_ago=300)
    expect(banner).to_have_text("The coordinator has not run for 5 min: start it.")
    assert not serious_violations(page)
    site.do("run_coordinator")
    expect(banner).to_be_hidden()
