"""Vendored scripts are the ones that VENDOR.md names, and the first page stays light."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

STATIC = Path(__file__).resolve().parents[2] / "static"
FIRST_PAGE_BYTES = 150_000


def test_vendored_files_are_those_listed() -> None:
    table = (STATIC / "vendor/VENDOR.md").read_text()
    listed = dict(re.findall(r"\| `([\w.-]+\.js)` .*`([0-9a-f]{64})` \|", table))
    present = {path.name: path for path in (STATIC / "vendor").glob("*.js")}
    assert set(listed) == set(present)
    for name, path in present.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name
        assert b"sourceMappingURL" not in path.read_bytes(), name


def test_first_page_fits_its_size_budget() -> None:
    files = [*STATIC.glob("css/*.css"), *STATIC.glob("js/**/*.js"), *STATIC.glob("vendor/*.js")]
    carried = [path for path in files if path.name != "chart.umd.min.js"]
    assert sum(len(gzip.compress(path.read_bytes())) for path in carried) < FIRST_PAGE_BYTES


def test_static_files_stay_short() -> None:
    for path in [*STATIC.glob("css/*.css"), *STATIC.glob("js/**/*.js")]:
        assert len(path.read_text().splitlines()) <= 300, path


def test_scripts_load_nothing_from_other_sites() -> None:
    for path in STATIC.glob("js/**/*.js"):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path
