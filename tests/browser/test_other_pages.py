"""Enrolment, estimate, dialogs, keyboard, themes, live presence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Window
from tests.browser.server import Site

pytestmark = pytest.mark.browser


def test_enrolment_completes_without_a_reload(window: Callable[..., Window], site: Site) -> None:
    tab = window()
    page = tab.go("/devices/enrol/")
    page.fill("[name=name]", "new-machine")
    page.click("text=Create command")
    command = page.locator("#enrol-command").inner_text()
    assert "python -m workers.agent enroll --server http" in command
    page.wait_for_selector("text=Waiting for new-machine")
    site.do("arrive", enrolment="new-machine")
    page.wait_for_selector(".notice[data-tone=good]:has-text('new-machine is enrolled')")
    assert "Raspberry Pi 5" in page.locator("#enrolment").inner_text()


def test_copy_button(window: Callable[..., Window]) -> None:
    tab = window()
    page = tab.go("/jobs/new/")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("text=Copy as JSON")
    page.wait_for_selector("text=Copied")
    assert '"strategy"' in page.evaluate("navigator.clipboard.readText()")


def test_estimate_follows_typing(window: Callable[..., Window], fleet: list[int]) -> None:
    tab = window()
    page = tab.go("/jobs/new/")
    before = page.locator("#estimate").inner_text()
    page.fill("[name='data.min_examples']", "100000")
    page.wait_for_selector("#estimate:has-text('Fits 0 of')")
    page.fill("[name='data.min_examples']", "none")
    page.wait_for_selector("#estimate:has-text('1 setting to fix')")
    page.fill("[name='data.min_examples']", "8")
    page.wait_for_selector("#estimate:has-text('about')")
    expect(page.locator("#estimate")).to_contain_text(before.split("\n")[0])


def test_options_show_with_their_choice(window: Callable[..., Window]) -> None:
    tab = window()
    page = tab.go("/jobs/new/")
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


def test_options_of_another_method_are_no_error(
    window: Callable[..., Window], fleet: list[int]
) -> None:
    tab = window(width=390)
    page = tab.go("/jobs/new/")
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


def test_cancel_dialog_names_the_consequence(window: Callable[..., Window], job: str) -> None:
    tab = window()
    page = tab.go(f"/jobs/{job}/")
    page.click("[data-move=cancel] button")
    dialog = page.locator("#confirm")
    assert "Cancel “clinic notes”?" in dialog.inner_text()
    assert "1 device stops within 5 s; the model of round 1 is kept" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    page.click("[data-move=cancel] button")
    page.click("#confirm-yes")
    page.wait_for_selector(".job-head .state:text('cancelled')")


def test_keyboard_shortcuts(window: Callable[..., Window], fleet: list[int]) -> None:
    tab = window()
    page = tab.go("/devices/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("jetson")
    page.wait_for_selector("tbody tr:has-text('jetson-lab')")
    page.wait_for_selector("tbody tr:has-text('nuc-office')", state="detached")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") != "q"


def test_theme_persists(window: Callable[..., Window]) -> None:
    tab = window(theme="light")
    page = tab.go("/")
    page.click("summary[aria-label^='Account']")
    page.click("[data-theme-set=dark]")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.go("/jobs/")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Escape")


def test_overview_follows_a_new_job(window: Callable[..., Window], site: Site) -> None:
    tab = window()
    page = tab.go("/")
    page.wait_for_timeout(1500)
    job = site.do("queued_job", name="fresh from the script")
    site.do("event", job=job, text="launched")
    page.wait_for_selector("text=fresh from the script")


def test_device_page_draws_measurements(
    window: Callable[..., Window], fleet: list[int], job: str
) -> None:
    tab = window()
    page = tab.go(f"/devices/{fleet[0]}/")
    tab.until("charts", "document.querySelectorAll('.chart-message[hidden]').length >= 3")
    assert "measured" in page.locator("main").inner_text()


def test_logout_elsewhere_is_shown(window: Callable[..., Window], site: Site, job: str) -> None:
    tab = window()
    page = tab.go(f"/jobs/{job}/")
    page.wait_for_selector("#device-rows tr")
    tab.ignores_errors = True
    page.context.clear_cookies()
    site.restart_web()
    page.wait_for_selector("#link-state:has-text('You are logged out')")
