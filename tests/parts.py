"""``python -m tests.parts [PART...] [-- PYTEST ARGUMENTS]``: every check, each its own process.

Stops at the first part that fails and closes with a table of what ran. ``make test`` calls it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.chromium import find_or_install

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = Path(sys.executable).parent  # of the virtual environment
PART_LIMIT_S = 2700
NO_TESTS = 5  # pytest's exit status where it collected nothing
INTERRUPTED = 130
# Where tests use a database; the others would only do the same again.
DATABASE_TESTS = ("tests/jobs", "tests/device_api", "tests/api", "tests/web")


@dataclass(frozen=True)
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass(frozen=True)
class Outcome:
    """``code`` is the part's exit status; ``counts`` is None where the part is no test run."""

    code: int
    counts: Counts | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the closing table."""

    name: str
    outcome: Outcome
    seconds: float

    def __str__(self) -> str:
        said = self.outcome.note or ("ok" if not self.outcome.code else "FAILED")
        counts = f"  {self.outcome.counts}" if self.outcome.counts else ""
        return f"  {self.name:<10} {self.seconds:6.0f} s  {said}{counts}"


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    print(f"$ {' '.join(command)}", flush=True)
    try:
        done = subprocess.run(
            [str(COMMANDS / command[0]), *command[1:]],
            cwd=ROOT,
            env=dict(os.environ if env is None else env),
            check=False,
            timeout=PART_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        print(f"not done after {PART_LIMIT_S} s", flush=True)
        return 124
    return done.returncode


def _each(*commands: Sequence[str]) -> Outcome:
    for command in commands:
        code = _run(command)
        if code:
            return Outcome(code)
    return Outcome(0)


def lint(_arguments: Sequence[str]) -> Outcome:
    return _each(["ruff", "check", "."], ["ruff", "format", "--check", "."])


def types(_arguments: Sequence[str]) -> Outcome:
    return _each(["mypy", "fedcore", "webapp", "workers", "benchmarks"])


def contracts(_arguments: Sequence[str]) -> Outcome:
    return _each(["lint-imports"])


def _pytest(options: Sequence[str], env: Mapping[str, str]) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = ["pytest", "-rs", "--durations=5", f"--junitxml={report}", *options]
        code = _run(command, env)
        counts = _counts(report)
    if code == NO_TESTS:
        return Outcome(0, counts, "no tests")
    return Outcome(code, counts)


def _counts(report: Path) -> Counts:
    if not report.exists():
        return Counts()
    total = Counts()
    for suite in ET.parse(report).getroot().iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        total += Counts(tests - failed - skipped, failed, skipped)
    return total


def _own_services() -> dict[str, str]:
    """The environment without the caller's database and broker: these parts bring their own."""
    theirs = {"DATABASE_URL", "REDIS_URL", "DEVICE_REDIS_URL"}
    return {key: value for key, value in os.environ.items() if key not in theirs}


def unit(arguments: Sequence[str]) -> Outcome:
    workers = str(min(4, os.cpu_count() or 1))
    options = ["-m", "not browser and not stack", "-n", workers, "--dist", "loadfile"]
    # Several processes at once, so one thread each.
    return _pytest([*options, *arguments], {**_own_services(), "OMP_NUM_THREADS": "1"})


def postgresql(arguments: Sequence[str]) -> Outcome:
    """Every test that touches a database once more, where rows really are locked one by one."""
    server = os.environ.get("TEST_DATABASE_URL") or os.environ.get("DATABASE_URL", "")
    if not server.startswith("postgres"):
        return Outcome(0, None, "skipped: neither TEST_DATABASE_URL nor DATABASE_URL names one")
    name = f"edgewise_{secrets.token_hex(6)}"  # pytest-django puts test_ before it
    env = {
        **_own_services(),
        "DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{name}")),
        "EDGEWISE_SECRET_KEY": "for-tests-only-" + "0123456789" * 5,
        "OMP_NUM_THREADS": "1",
    }
    workers = str(min(4, os.cpu_count() or 1))
    options = ["-m", "not browser and not stack", "-n", workers, "--dist", "loadfile"]
    return _pytest([*options, *DATABASE_TESTS, *arguments], env)


def browser(arguments: Sequence[str]) -> Outcome:
    """A run of its own: Playwright's event loop and pytest-asyncio's do not share a process."""
    chromium = find_or_install()
    if chromium is None:
        return Outcome(0, None, "skipped: no Chromium here, and none could be installed")
    env = {**_own_services(), "EDGEWISE_CHROMIUM": chromium}
    return _pytest(["-m", "browser and not stack", *arguments], env)


def stack(arguments: Sequence[str]) -> Outcome:
    """Whole systems. PostgreSQL and Redis are used where these variables name them."""
    env = _own_services()
    for name in ("DATABASE_URL", "REDIS_URL"):
        given = os.environ.get(f"TEST_{name}") or os.environ.get(name)
        if given:
            env[f"TEST_{name}"] = given
    chromium = find_or_install()
    if chromium is not None:
        env["EDGEWISE_CHROMIUM"] = chromium
    return _pytest(["-m", "stack", *arguments], env)


PARTS: Mapping[str, Callable[[Sequence[str]], Outcome]] = {
    "lint": lint,
    "types": types,
    "contracts": contracts,
    "unit": unit,
    "postgresql": postgresql,
    "browser": browser,
    "stack": stack,
}


def main(arguments: Sequence[str]) -> int:
    """Run the named parts, or all. Returns the first exit status that is not 0."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    names, rest = arguments[:split], arguments[split + 1 :]
    unknown = set(names) - PARTS.keys()
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    lines: list[Line] = []
    code = 0
    for name in names or PARTS:
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        try:
            outcome = PARTS[name](rest)
        except KeyboardInterrupt:
            outcome = Outcome(INTERRUPTED, None, "interrupted")
        lines.append(Line(name, outcome, time.monotonic() - began))
        code = outcome.code
        if code:
            break
    _close(lines, [name for name in PARTS if not names][len(lines) :])
    return code


def _close(lines: Sequence[Line], left: Sequence[str]) -> None:
    print("\n== summary")
    for line in lines:
        print(line)
    for name in left:
        print(f"  {name:<10}         not run")
    counted = [line.outcome.counts for line in lines if line.outcome.counts]
    if counted:
        print(sum(counted, Counts()), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
