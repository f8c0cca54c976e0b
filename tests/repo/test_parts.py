"""The runner of ``make test``: lanes, exit statuses, and the summary that closes a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import parts
from tests.agent.conftest import is_gone, wait_for
from tests.compose import ROOT
from tests.parts import Commands
from tests.report import Case, Counts, Result, Row, of_junit, summary, write_proofs

JUNIT = """<testsuites><testsuite tests="4" skipped="1" failures="1" errors="0">
<testcase classname="tests.stack.test_nginx" name="test_transfers_pass" time="0.5">
<skipped type="pytest.skip" message="needs nginx"/></testcase>
<testcase classname="tests.stack.test_nginx" name="test_other" time="2.0"><failure/></testcase>
</testsuite></testsuites>"""


def ends_with(code: int, words: str = "") -> parts.Run:
    """A part that prints ``words`` from another process and ends with ``code``."""

    def run(commands: Commands, _arguments: Sequence[str]) -> Result:
        commands.run([sys.executable, "-c", f"print({words!r})"])
        return Result(code, Counts(passed=2))

    return run


@pytest.fixture
def run_parts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``run_parts({0: {"a": part}, 5: {"b": part}})`` runs lanes of these parts."""

    def run(lanes: dict[int, dict[str, parts.Run]], *names: str) -> int:
        table = {name: part for lane in lanes.values() for name, part in lane.items()}
        monkeypatch.setattr(parts, "PARTS", table)
        monkeypatch.setattr(parts, "LANES", {nice: tuple(lane) for nice, lane in lanes.items()})
        return parts.main(names)

    return run


def test_lanes_print_each_part_and_the_sum(
    run_parts: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    lanes = {0: {"one": ends_with(0, "first")}, 5: {"two": ends_with(0, "second")}}
    assert run_parts(lanes) == 0
    printed = capfd.readouterr().out
    assert "\n== one\n" in printed and "\nfirst\n" in printed and "\nsecond\n" in printed
    assert printed.endswith("== skipped\n  nothing\n4 passed, 0 failed, 0 skipped\n")


def test_failed_part_ends_its_lane_alone(
    run_parts: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    lanes = {
        0: {"bad": ends_with(3), "after": ends_with(0)},
        5: {"good": ends_with(0), "too": ends_with(0)},
    }
    assert run_parts(lanes) == 3
    closing = capfd.readouterr().out.partition("== summary")[2].splitlines()
    status = {line.split()[0]: line for line in closing if line.startswith("  ")}
    assert "FAILED" in status["bad"]
    assert "ok" in status["good"] and "ok" in status["too"]
    assert status["after"].endswith("not run")


def test_named_parts_run_one_by_one(run_parts: Callable[..., int]) -> None:
    lanes = {0: {"one": ends_with(0), "two": ends_with(4), "three": ends_with(0)}}
    assert run_parts(lanes, "one") == 0
    assert run_parts(lanes, "two", "one") == 4
    assert run_parts(lanes, "nine") == 2


def test_command_leaves_no_process_behind(tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    commands = Commands(tmp_path / "out")
    assert commands.run([sys.executable, "-c", code]) == 0
    pid = (tmp_path / "out").read_text().split()[-1]
    wait_for(lambda: is_gone(int(pid)))


def test_summary_names_every_skip_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(JUNIT)
    result = of_junit(1, tmp_path / "report.xml")
    assert result.counts == Counts(2, 1, 1)
    assert result.cases == (
        Case("stack.test_nginx::test_transfers_pass", "skipped", 0.5, "needs nginx"),
        Case("stack.test_nginx::test_other", "failed", 2.0),
    )
    lines = summary([Row("stack", result, 61.4)], ["unit"]).splitlines()
    assert lines == [
        "== summary",
        "  stack          61 s  FAILED  2 passed, 1 failed, 1 skipped",
        "  unit                 not run",
        "== skipped",
        "  stack: needs nginx (stack.test_nginx::test_transfers_pass)",
        "2 passed, 1 failed, 1 skipped",
    ]


def test_run_without_a_report_keeps_its_exit_status(tmp_path: Path) -> None:
    assert of_junit(137, tmp_path / "none.xml") == Result(137, Counts())


def test_proofs_keep_their_page_and_replace_the_last_run(tmp_path: Path) -> None:
    page = tmp_path / "PROOFS.md"
    page.write_text("# Proofs\n\nWords.\n\n## Last run\n\nold\n")
    write_proofs(page, [Case("stack.test_chaos::test_all", "passed", 61.4)], "today")
    assert page.read_text() == (
        "# Proofs\n\nWords.\n\n## Last run\n\ntoday\n\n| test | result | seconds |\n"
        "| --- | --- | ---: |\n| `stack.test_chaos::test_all` | passed | 61 |\n"
    )


MARKED_FOLDERS = {
    "postgresql": parts.DATABASE_TESTS,
    "browser": ("tests/browser",),
    "stack": ("tests/stack",),
}


@pytest.mark.parametrize("marker", MARKED_FOLDERS)
def test_marker_stays_in_the_folders_of_its_part(marker: str) -> None:
    words = f"pytest.mark.{marker}"
    marked = [path for path in (ROOT / "tests").rglob("*.py") if words in path.read_text()]
    folders = {str(path.parent.relative_to(ROOT)) for path in marked}
    assert folders <= set(MARKED_FOLDERS[marker])
