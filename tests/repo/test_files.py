"""Size, vendored scripts, and what must never be in the repository."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.compose import ROOT

LONGEST = 340
CODE_SUFFIXES = (".py", ".js", ".css", ".html", ".sh")
EXCLUDED = ("static/vendor/", "tests/browser/vendor/", "migrations/")
LARGEST_BYTES = 12 * 2**20


def _files() -> Iterator[Path]:
    """What git keeps, new files included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in done.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            yield path


def _code_files() -> Iterator[Path]:
    for path in _files():
        name = str(path.relative_to(ROOT))
        if path.suffix in CODE_SUFFIXES and not any(part in name for part in EXCLUDED):
            yield path


def test_no_file_is_too_long_to_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _code_files()
        if (lines := path.read_text().count("\n")) > LONGEST
    }
    assert long == {}, f"split them; at most {LONGEST} lines"


def test_no_file_is_too_large_to_clone() -> None:
    large = [str(p.relative_to(ROOT)) for p in _files() if p.stat().st_size > LARGEST_BYTES]
    assert large == []


def test_vendored_scripts_match_their_digests() -> None:
    folder = ROOT / "static" / "vendor"
    rows = re.findall(r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", _vendor_page(), re.MULTILINE)
    digests = dict(rows)
    present = {path.name for path in folder.iterdir() if path.suffix in (".js", ".css")}
    assert present == digests.keys()
    for name, expected in digests.items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected, name
        assert b"sourceMappingURL" not in content, name


def test_vendored_scripts_come_with_their_licences() -> None:
    rows = re.findall(r"^\| `[^`]+` \| ([\w.-]+)", _vendor_page(), re.MULTILINE)
    licences = {path.stem for path in (ROOT / "static" / "vendor" / "licences").iterdir()}
    assert {name.removesuffix(".org") for name in rows} <= licences | {"htmx"}


def _vendor_page() -> str:
    return (ROOT / "static" / "vendor" / "VENDOR.md").read_text()


def test_no_secret_is_in_the_repository() -> None:
    names = [path.name for path in _files()]
    assert ".env" not in names
    assert not [name for name in names if name.endswith((".pem", ".key", ".sqlite3"))]
