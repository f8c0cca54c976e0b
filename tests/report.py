"""Results of the parts of ``tests.parts`` and the summary that closes a run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


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
class Skip:
    test: str
    reason: str


@dataclass(frozen=True)
class Result:
    """``code`` is a part's exit status; ``counts`` is None where the part is no test run."""

    code: int
    counts: Counts | None = None
    note: str = ""
    skips: tuple[Skip, ...] = ()


@dataclass(frozen=True)
class Row:
    """One part in the summary."""

    name: str
    result: Result
    seconds: float

    def __str__(self) -> str:
        status = self.result.note or ("FAILED" if self.result.code else "ok")
        counts = f"  {self.result.counts}" if self.result.counts else ""
        return f"  {self.name:<10} {self.seconds:6.0f} s  {status}{counts}"


def of_junit(code: int, path: Path) -> Result:
    """The result of a test run with exit status ``code`` from the report that pytest wrote."""
    if not path.exists():
        return Result(code, Counts())
    root = ET.parse(path).getroot()
    counts = Counts()
    for suite in root.iter("testsuite"):
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        counts += Counts(tests - failed - skipped, failed, skipped)
    return Result(code, counts, "", tuple(_skips(root)))


def _skips(root: ET.Element) -> Iterator[Skip]:
    for case in root.iter("testcase"):
        for skipped in case.iter("skipped"):
            name = f"{case.get('classname')}::{case.get('name')}".removeprefix("tests.")
            yield Skip(name, skipped.get("message", ""))


def summary(rows: Sequence[Row], not_run: Sequence[str]) -> str:
    """A table of the parts, every skip with its reason, and the sum of all tests."""
    lines = ["== summary", *map(str, rows)]
    lines += [f"  {name:<10} {'':6}    not run" for name in not_run]
    lines += ["== skipped", *_skip_lines(rows)]
    counts = [row.result.counts for row in rows if row.result.counts]
    if counts:
        lines.append(str(sum(counts, Counts())))
    return "\n".join(lines)


def _skip_lines(rows: Sequence[Row]) -> list[str]:
    """Tests with the same reason share a line."""
    tests_by_reason: dict[str, list[str]] = {}
    for row in rows:
        for skip in row.result.skips:
            tests_by_reason.setdefault(f"{row.name}: {skip.reason}", []).append(skip.test)
    lines = [f"  {reason} ({', '.join(tests)})" for reason, tests in tests_by_reason.items()]
    return lines or ["  nothing"]
