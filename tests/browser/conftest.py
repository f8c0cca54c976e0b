"""Fixtures: a running site, Chromium, and pages that record their problems."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import chromium as finder
from tests.browser.server import Site, start_site
from tests.web.factories import PASSWORD

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
LIMIT_MS = 30_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    path = finder.find_or_install()
    if path is None:
        pytest.skip("no Chromium here: none on the PATH, and none could be installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def site(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = start_site(Path(tmp_path_factory.mktemp("site")))
    try:
        running.do("user", name="ada")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def fleet(site: Site) -> list[int]:
    ids: list[int] = site.do("fleet", count=3)
    return ids


@pytest.fixture
def job(site: Site, fleet: list[int]) -> str:
    """A new running job for every test, in its second round."""
    opened_window: str = site.do("running_job", devices=fleet, rounds=2, samples=8)
    return opened_window


class Window:
    """A logged-in page. ``problems`` are console errors, CSP violations and requests elsewhere."""

    def __init__(self, page: Any, site: Site) -> None:
        self.page, self.site = page, site
        self.problems: list[str] = []
        self.ignores_errors = False  # the test causes errors on purpose
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and not self.ignores_errors:
            self.problems.append(f"{message.type}: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.site.url, "data:", "blob:", "ws://127.0.0.1")):
            self.problems.append(f"request elsewhere: {request.url}")

    def go(self, path: str) -> Any:
        self.page.goto(self.site.url + path)
        return self.page

    def until(self, what: str, script: str, seconds: float = 15) -> Any:
        """Wait until a script returns a true value; the CSP forbids wait_for_function."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            value = self.page.evaluate(script)
            if value:
                return value
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never: {what}")


@pytest.fixture(scope="session")
def session_cookies(chromium: Any, site: Site) -> list[Any]:
    """Log in once for all tests."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto(site.url + "/login/")
    page.fill("[name=username]", "ada")
    page.fill("[name=password]", PASSWORD)
    page.click("main button")
    page.wait_for_url(site.url + "/")
    cookies: list[Any] = context.cookies()
    context.close()
    return cookies


@pytest.fixture
def window(
    chromium: Any, site: Site, session_cookies: list[Any]
) -> Iterator[Callable[..., Window]]:
    """``window(width=390, theme="dark")``; fails the test if its pages had problems."""
    opened = []

    def open_window(width: int = 1280, theme: str = "light", signed_in: bool = True) -> Window:
        size = {"width": width, "height": 900}
        context = chromium.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
        context.set_default_timeout(LIMIT_MS)
        if signed_in:
            context.add_cookies(session_cookies)
        opened_window = Window(context.new_page(), site)
        opened.append((context, opened_window))
        return opened_window

    yield open_window
    problems = [problem for _, opened_window in opened for problem in opened_window.problems]
    for context, _ in opened:
        context.close()
    assert not problems
