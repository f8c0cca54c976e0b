"""The command that compares the bits of two versions, run on one case."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.identical_results import CASES, TABLE, digest
from fedcore.spec.options.adapter import AdapterKind
from fedcore.spec.options.lowrank import LowRankRule
from fedcore.spec.options.method import MethodKind
from fedcore.spec.options.strategy import FoldKind, StrategyKind

CASE = "rule fedit"


def test_digest_ignores_clocks() -> None:
    assert digest({"loss": 1.0, "seconds": 2.0}) == digest({"loss": 1.0, "seconds": 3.0})
    assert digest({"loss": 1.0}) != digest({"loss": 1.5})


def test_table_has_every_family_member() -> None:
    recorded = json.loads(TABLE.read_text())["sha256"]
    families = {
        "strategy": tuple(StrategyKind),
        "fold": tuple(map(str, FoldKind)),
        "rule": tuple(LowRankRule),
        "method": tuple(MethodKind),
        "adapter": tuple(AdapterKind),
    }
    expected = {f"{family} {name}" for family, names in families.items() for name in names}
    assert expected - CASES.keys() == set()
    assert recorded.keys() == CASES.keys() | {"demo"}


@pytest.mark.timeout(400)
def test_differences_to_a_table_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = json.loads(TABLE.read_text())
    table = tmp_path / "table.json"
    table.write_text(json.dumps({**committed, "sha256": {CASE: "0" * 64}}))
    assert main(["identical_results", "--only", CASE, "--table", str(table)]) == 1
    output = capsys.readouterr()
    line = re.search(rf"{CASE}: 000000000000 in the table, (\w+) now", output.out)
    assert line
    if "the table was made on" not in output.err:  # same processor and torch: same bits
        assert committed["sha256"][CASE].startswith(line[1])


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_every_case_has_the_bits_of_the_table(tmp_path: Path) -> None:
    """Two runs must agree; with the committed table only the same machine type can."""
    table = tmp_path / "table.json"
    assert main(["identical_results", "--table", str(table), "--write"]) == 0
    assert main(["identical_results", "--table", str(table)]) == 0
    committed, written = json.loads(TABLE.read_text()), json.loads(table.read_text())
    if committed["machine"] == written["machine"]:
        assert written["sha256"].items() <= committed["sha256"].items()
