"""The local-only baseline: started on the page, results appear live."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import Window
from tests.browser.server import Site

pytestmark = pytest.mark.browser


def test_gains_appear_without_a_reload(
    window: Callable[..., Window], site: Site, fleet: list[int]
) -> None:
    job = site.do("finished_job", devices=fleet)
    tab = window()
    page = tab.go(f"/jobs/{job}/")
    assert "about as long as the job's training" in page.locator("#alone").inner_text()
    page.click("text=Compare with training alone")
    page.wait_for_selector("#alone tbody tr:nth-child(3) .state:has-text('queued')")
    site.do("train_alone", job=job, fails="the disk is full")
    page.wait_for_selector("#alone:has-text('gained from the shared model')")
    text = page.locator("#alone").inner_text()
    assert "The disk is full" in text and "of 2 devices" in text
    page.wait_for_selector("text=Retry missing devices")


def test_baseline_fits_a_phone(window: Callable[..., Window], site: Site, fleet: list[int]) -> None:
    job = site.do("finished_job", devices=fleet)
    tab = window(width=390, theme="dark")
    page = tab.go(f"/jobs/{job}/")
    page.click("text=Compare with training alone")
    page.wait_for_selector("#alone tbody tr:nth-child(3)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
