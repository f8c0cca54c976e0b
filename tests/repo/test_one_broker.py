"""Devices reach the site by its own address: nothing names a broker of theirs any more."""

from __future__ import annotations

import re
import subprocess

from tests.compose import ROOT

NAMES = re.compile(
    r"devices?'?s? (?:broker|redis)\b|\b(?:redis|broker)-devices\b|device_(?:redis|broker)"
    r"|\bbroker_users?\b|\bbroker users?\b|\b6380\b|\bACLs?\b|\bboth (?:brokers|redis)|two brokers",
    re.IGNORECASE,
)
EXPLAINS_THE_CHANGE = (
    "CHANGELOG.md",
    "docs/guides/upgrade-notes.md",
    "tests/repo/test_one_broker.py",
)
# What the database was before.
MIGRATIONS = ("webapp/devices/migrations/",)
# These are still being moved to the line; remove them from here once they are.
MOVING = (
    "tests/line/test_migration.py",
    "workers/agent/",
    "tests/agent/",
    "tests/stack/",
    "benchmarks/",
    "docs/reference/protocol.md",
)


def _names_in(text: str) -> list[str]:
    return sorted({match[0] for match in NAMES.finditer(text)})


def test_nothing_names_a_broker_of_devices() -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    excluded = (*EXPLAINS_THE_CHANGE, *MIGRATIONS, *MOVING)
    named: dict[str, list[str]] = {}
    for name in done.stdout.decode().split("\0"):
        path = ROOT / name
        if not name or name.startswith(excluded) or not path.is_file():
            continue
        if names := _names_in(path.read_text("utf-8", "ignore")):
            named[name] = names
    assert named == {}


def test_pattern_knows_the_former_names() -> None:
    for text in (
        "the devices' broker", "the devices' Redis", "redis-devices", "DEVICE_REDIS_URL",
        "DEVICE_BROKER_HOST", "port 6380", "an ACL file", "broker_users",
    ):  # fmt: skip
        assert _names_in(text), text
    assert _names_in("the site's broker, a device's line, REDIS_URL") == []
