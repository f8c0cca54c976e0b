"""Emulated transfers are as slow as their link."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.links import transfers
from fedcore.hardware.links import Link

FAST = Link(4e6, 8e6, 0.02, name="fast")
SIZE = 200_000


def test_transfer_is_not_faster_than_its_link(tmp_path: Path) -> None:
    down, up = transfers(FAST, SIZE, tmp_path, repeats=1)
    assert down >= 0.95 * FAST.down_s(SIZE)
    assert up >= 0.95 * FAST.up_s(SIZE)


def test_links_prints_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["links", "--links", "ethernet-1g", "--bytes", "5000"]) == 0
    text = capsys.readouterr().out
    assert text.count("| ethernet-1g |") == 2
