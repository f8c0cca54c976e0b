"""Every page in both themes: accessible, no console errors, no horizontal scrolling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Window
from tests.browser.server import Site

pytestmark = pytest.mark.browser
AXE = (Path(__file__).parent / "vendor/axe.min.js").read_text()
PATHS = (
    "/",
    "/devices/",
    "/devices/?q=nothing-like-this",
    "/devices/compare/",
    "/devices/enrol/",
    "/jobs/",
    "/jobs/new/",
    "/profile/",
    "/tokens/",
    "/users/",
)


def serious_violations(page: Any) -> list[str]:
    """axe-core's serious and critical findings, each with its first places."""
    page.evaluate(AXE)
    violations = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{item['id']}: {[node['target'] for node in item['nodes']][:4]}"
        for item in violations["violations"]
        if item["impact"] in ("serious", "critical")
    ]


def wait_for_charts(tab: Window) -> None:
    if tab.page.locator("#charts").count():
        tab.page.evaluate("document.getElementById('charts').scrollIntoView()")
        is_drawn = "n => n.hidden || n.textContent !== 'Loading …'"
        tab.until(
            "charts", f"[...document.querySelectorAll('.plot .chart-message')].some({is_drawn})"
        )
    tab.page.wait_for_timeout(250)


def job_with_long_texts(site: Site) -> str:
    """A FedPipe job that failed before round 0, with a long reason and lists among its options."""
    names = ["pi-kitchen", "jetson-lab", "nuc-office"]
    job: str = site.do(
        "queued_job",
        name="a budget nothing fits into",
        adapter={"aggregation": "flexlora", "targets": ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]},
        method={"name": "fedpipe", "memory_budget_mb": 100},
        participation={"devices": names},
    )
    why = "needs at least 476.3 MB of memory and may use 100 MB, whatever it adapts"
    reason = "; ".join(f"{name}: {why}; give it more, or leave it out" for name in names)
    site.do("finish", job=job, phase="failed", reason=reason)
    return job


@pytest.fixture(scope="module")
def paths(site: Site, fleet: list[int]) -> list[str]:
    running = site.do("measured_job", devices=fleet, rounds=3)
    queued = site.do("queued_job", name="waiting for its turn")
    failed = site.do("running_job", devices=fleet[:2], rounds=1, name="failed one")
    site.do("finish", job=failed, phase="failed", reason="1 of 2 needed devices reported")
    rewarded = site.do("rewarded_job", devices=fleet, rounds=4)
    jobs = [
        f"/jobs/{key}/" for key in (running, queued, failed, rewarded, job_with_long_texts(site))
    ]
    jobs += [f"/jobs/{key}/report/" for key in (running, failed, rewarded)]
    return [*PATHS, f"/devices/{fleet[0]}/", *jobs, f"/jobs/new/?from={running}"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_violation(window: Callable[..., Window], paths: list[str], theme: str) -> None:
    tab = window(theme=theme)
    violations = {}
    for path in paths:
        tab.go(path)
        wait_for_charts(tab)
        violations[path] = serious_violations(tab.page)
    assert not {path: items for path, items in violations.items() if items}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_login_page_is_accessible(window: Callable[..., Window], theme: str) -> None:
    tab = window(theme=theme, signed_in=False, width=390)
    tab.go("/jobs/")
    assert tab.page.locator("h1").inner_text() == "Log in"
    assert not serious_violations(tab.page)


def test_form_errors_are_accessible(window: Callable[..., Window]) -> None:
    tab = window()
    page = tab.go("/jobs/new/")
    page.fill("[name=rounds]", "many")
    page.fill("[name='train.batch_size']", "0")
    tab.ignores_errors = True  # 422 is an error to the console
    page.click("text=Launch job")
    page.wait_for_selector(".field-error")
    tab.ignores_errors = False
    expect(page.locator(".field-error")).to_have_count(2)
    expect(page.locator("[aria-invalid=true]")).to_have_count(2)
    assert not serious_violations(page)


@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_nothing_overflows(window: Callable[..., Window], paths: list[str], width: int) -> None:
    tab = window(width=width)
    wide = {}
    for path in paths:
        tab.go(path)
        wait_for_charts(tab)
        needed = tab.page.evaluate("document.documentElement.scrollWidth")
        if needed > width:
            wide[path] = needed
    assert not wide


def test_error_pages(window: Callable[..., Window]) -> None:
    tab = window()
    tab.ignores_errors = True  # a 404 is an error to the console
    tab.go("/nothing/here/")
    assert tab.page.locator("h1").inner_text() == "Page not found"
    assert not serious_violations(tab.page)
