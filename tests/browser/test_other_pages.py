"""Enrolment that turns green, the estimate, dialogs, keys, themes, presence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Window
from tests.browser.server import Site

pytestmark = pytest.mark.browser


def test_enrolment_turns_green_by_itself(window: Callable[..., Window], site: Site) -> None:
    made = window()
    page = made.go("/devices/enrol/")
    page.fill("[name=name]", "new-machine")
    page.click("text=Create command")
    command = page.locator("#enrol-command").inner_text()
    assert "python -m workers.agent enroll --server http" in command
    page.wait_for_selector("text=Waiting for new-machine")
    site.do("arrive", enrolment="new-machine")
    page.wait_for_selector(".notice[data-tone=good]:has-text('new-machine is enrolled')")
    assert "Raspberry Pi 5" in page.locator("#enrolment").inner_text()


def test_copy_button(window: Callable[..., Window]) -> None:
    made = window()
    page = made.go("/jobs/new/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("text=Copy as JSON")
    page.wait_for_selector("text=Copied")
    assert '"strategy"' in page.evaluate("navigator.clipboard.readText()")


def test_estimate_follows_typing(window: Callable[..., Window], fleet: list[int]) -> None:
    made = window()
    page = made.go("/jobs/new/")
    before = page.locator("#estimate").inner_text()
    page.fill("[name='data.min_examples']", "100000")
    page.wait_for_selector("#estimate:has-text('Fits 0 of')")
    page.fill("[name='data.min_examples']", "none")
    page.wait_for_selector("#estimate:has-text('1 setting to fix')")
    page.fill("[name='data.min_examples']", "8")
    page.wait_for_selector("#estimate:has-text('about')")
    expect(page.locator("#estimate")).to_contain_text(before.split("\n")[0])


def test_options_show_with_the_choice_they_belong_to(window: Callable[..., Window]) -> None:
    made = window()
    page = made.go("/jobs/new/")
    expect(page.locator("[name='strategy.proximal_mu']")).to_be_hidden()
    page.check("[value=fedprox]")
    expect(page.locator("[name='strategy.proximal_mu']")).to_be_visible()
    page.check("[value=full]")
    expect(page.locator("[name='adapter.rank']")).to_be_hidden()
    page.locator("#o-strategy-name summary").click()
    page.locator("details:has([name='strategy.tau']) > summary").click()
    for name, tau in (("fedavgm", False), ("fedyogi", True)):
        page.check(f"[value={name}]")
        expect(page.locator("[name='strategy.beta1']")).to_be_visible()
        expect(page.locator("[name='strategy.tau']")).to_be_visible(visible=tau)


def test_what_another_method_left_behind_is_no_fault(
    window: Callable[..., Window], fleet: list[int]
) -> None:
    made = window(width=390)
    page = made.go("/jobs/new/")
    expect(page.locator("[name='method.rewards']")).to_be_hidden()
    page.check("[value=pfit]")
    page.check("[value=layers]")
    page.fill("[name='method.rewards']", "helpful")
    page.wait_for_selector("#estimate a:has-text('Rewards')")
    page.click("#estimate a:has-text('Rewards')")
    assert page.evaluate("document.activeElement.name") == "method.rewards"
    page.check("[value=none]")
    page.wait_for_selector("#estimate:has-text('Fits')")
    expect(page.locator("[name='method.rewards']")).to_be_hidden()
    page.click("text=Save as draft")
    page.wait_for_selector(".job-head .state:text('draft')")


def test_cancelling_asks_and_names_the_consequence(window: Callable[..., Window], job: str) -> None:
    made = window()
    page = made.go(f"/jobs/{job}/")
    page.click("[data-move=cancel] button")
    dialog = page.locator("#confirm")
    assert "Cancel “clinic notes”?" in dialog.inner_text()
    assert "1 device stops within 5 s; the model of round 1 is kept" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    page.click("[data-move=cancel] button")
    page.click("#confirm-yes")
    page.wait_for_selector(".job-head .state:text('cancelled')")


def test_keys(window: Callable[..., Window], fleet: list[int]) -> None:
    made = window()
    page = made.go("/devices/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("jetson")
    page.wait_for_selector("tbody tr:has-text('jetson-lab')")
    page.wait_for_selector("tbody tr:has-text('nuc-office')", state="detached")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") != "q"


def test_theme_is_kept(window: Callable[..., Window]) -> None:
    made = window(theme="light")
    page = made.go("/")
    page.click("summary[aria-label^='Account']")
    page.click("[data-theme-set=dark]")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    made.go("/jobs/")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Escape")


def test_overview_follows_a_new_job(window: Callable[..., Window], site: Site) -> None:
    made = window()
    page = made.go("/")
    page.wait_for_timeout(1500)
    job = site.do("queued_job", name="fresh from the script")
    site.do("event", job=job, text="launched")
    page.wait_for_selector("text=fresh from the script")


def test_device_page_draws_what_it_measured(
    window: Callable[..., Window], fleet: list[int], job: str
) -> None:
    made = window()
    page = made.go(f"/devices/{fleet[0]}/")
    made.until("charts", "document.querySelectorAll('.chart-message[hidden]').length >= 3")
    assert "measured" in page.locator("main").inner_text()


def test_logged_out_elsewhere_is_said(window: Callable[..., Window], site: Site, job: str) -> None:
    made = window()
    page = made.go(f"/jobs/{job}/")
    page.wait_for_selector("#device-rows tr")
    made.away = True
    page.context.clear_cookies()
    site.restart_web()
    page.wait_for_selector("#link-state:has-text('You are logged out')")
