"""A Chromium for the browser tests: on the PATH, Playwright's own, or, when root, Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.packages import install, succeeds

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
DOWNLOAD_LIMIT_S = 180


def find() -> str | None:
    """The path of an installed browser; EDGEWISE_CHROMIUM names one."""
    return os.environ.get("EDGEWISE_CHROMIUM") or _on_path() or _of_playwright()


@cache
def find_or_install() -> str | None:
    """The path of a browser, installed now if need be; None where that is not possible."""
    return find() or _from_playwright() or _from_debian()


def _on_path() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def _of_playwright() -> str | None:
    code = (
        "from playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as playwright: print(playwright.chromium.executable_path)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    path = done.stdout.strip()
    return path if path and Path(path).exists() else None


def _from_playwright() -> str | None:
    print("no Chromium on the PATH; asking Playwright for its own ...", flush=True)
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    return _of_playwright() if succeeds(command, DOWNLOAD_LIMIT_S) else None


def _from_debian() -> str | None:
    install(["chromium"])
    return _on_path()
