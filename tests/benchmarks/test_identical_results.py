"""The command that compares the bits of two versions, run on one case."""

from __future__ import annotations

import json
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
def test_written_table_matches_and_change_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.json"
    command = ["identical_results", "--only", CASE, "--table", str(table)]
    assert main([*command, "--write"]) == 0
    written = json.loads(table.read_text())
    committed = json.loads(TABLE.read_text())
    if written["machine"] == committed["machine"]:
        assert written["sha256"][CASE] == committed["sha256"][CASE]
    written["sha256"][CASE] = "0" * 64
    table.write_text(json.dumps(written))
    capsys.readouterr()
    assert main(command) == 1
    assert f"{CASE}: 000000000000 in the table" in capsys.readouterr().out
