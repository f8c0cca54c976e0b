"""Results of the parts of ``tests.parts`` and the summary that closes a run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
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
class Case:
    """One test: ``outcome`` is passed, failed or skipped, ``reason`` that of a skip."""

    test: str
    outcome: str
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """``code`` is a part's exit status; ``counts`` is None where the part is no test run."""

    code: int
    counts: Counts | None = None
    note: str = ""
    cases: tuple[Case, ...] = ()


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
    return Result(code, counts, "", tuple(map(_case, root.iter("testcase"))))


def _case(element: ET.Element) -> Case:
    name = f"{element.get('classname')}::{element.get('name')}".removeprefix("tests.")
    seconds = float(element.get("time", 0))
    skipped = element.find("skipped")
    if skipped is not None:
        return Case(name, "skipped", seconds, skipped.get("message", ""))
    failed = element.find("failure") is not None or element.find("error") is not None
    return Case(name, "failed" if failed else "passed", seconds)


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
        for case in row.result.cases:
            if case.outcome == "skipped":
                tests_by_reason.setdefault(f"{row.name}: {case.reason}", []).append(case.test)
    lines = [f"  {reason} ({', '.join(tests)})" for reason, tests in tests_by_reason.items()]
    return lines or ["  nothing"]


def write_proofs(page: Path, cases: Sequence[Case], conditions: str) -> None:
    """Replace a page's last section by a table of a whole run; ``conditions``: when and of what."""
    before, heading, _ = page.read_text().partition("## Last run\n")
    rows = [f"| `{case.test}` | {case.outcome} | {case.seconds:.0f} |" for case in cases]
    table = "\n".join(["| test | result | seconds |", "| --- | --- | ---: |", *rows])
    page.write_text(f"{before}{heading}\n{conditions}\n\n{table}\n")
