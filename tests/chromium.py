"""A Chromium for the browser tests: on the PATH, Playwright's own, or, when root, Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
DOWNLOAD_LIMIT_S = 180
PACKAGE_LIMIT_S = 600


def find() -> str | None:
    """The path of a browser that is here already; EDGEWISE_CHROMIUM names one."""
    given = os.environ.get("EDGEWISE_CHROMIUM")
    return given or next(filter(None, map(shutil.which, NAMES)), None) or _playwrights_own()


@cache
def find_or_install() -> str | None:
    """The path of a browser, installed now if need be; None where that is not possible."""
    return find() or _from_playwright() or _from_debian()


def _playwrights_own() -> str | None:
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
    return _playwrights_own() if _succeeds(command, DOWNLOAD_LIMIT_S) else None


def _from_debian() -> str | None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    print("installing Debian's chromium ...", flush=True)
    _succeeds(["apt-get", "update", "-qq"], PACKAGE_LIMIT_S)
    _succeeds(["apt-get", "install", "-y", "-qq", "chromium"], PACKAGE_LIMIT_S)
    return next(filter(None, map(shutil.which, NAMES)), None)


def _succeeds(command: Sequence[str], limit_s: float) -> bool:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            list(command), env=env, stdout=subprocess.DEVNULL, check=False, timeout=limit_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{command[0]}: {error}", flush=True)
        return False
    return done.returncode == 0
