"""Short runs of the commands that start a site of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def _run(tmp_path: Path, name: str, *options: str) -> tuple[str, Any]:
    """What a command prints, and the figures that it writes."""
    command = [sys.executable, "-m", "benchmarks", name, *options]
    command += ["--json", str(tmp_path / "figures.json"), "--folder", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, json.loads((tmp_path / "figures.json").read_text())


def test_round_of_virtual_devices_within_messages(tmp_path: Path) -> None:
    options = ["--payload", "tiny", "--devices", "5", "--virtual", "--rounds", "4", "--steps"]
    shown, (figures,) = _run(tmp_path, "round", *options)
    assert "| tiny | 5 |" in shown
    assert figures["devices"] == 5 and len(figures["round_s"]) == 2
    # Base64 of the model, and the rest of a message.
    assert 4 / 3 * figures["model_bytes"] < figures["bytes_down"] < 2 * figures["model_bytes"]
    uploads = list((tmp_path / "site").rglob("virtual/updates"))
    assert uploads == [], "no device transferred anything by HTTP"


def test_round_of_virtual_devices_by_http(tmp_path: Path) -> None:
    """With a rank too large for messages."""
    options = ["--payload", "tiny", "--devices", "2", "--virtual", "--rounds", "4"]
    _, (figures,) = _run(tmp_path, "round", *options, "--set", "adapter.rank=16")
    assert figures["model_bytes"] > 100_000
    assert figures["bytes_up"] > figures["model_bytes"]


def test_round_of_agents(tmp_path: Path) -> None:
    options = ["--payload", "tiny", "--devices", "2", "--rounds", "4"]
    _, (figures,) = _run(tmp_path, "round", *options)
    assert figures["bytes_up"] > figures["model_bytes"]
    assert figures["cpu_s"]["web"] > 0


def test_fleet_measures_idle_lines_and_a_round(tmp_path: Path) -> None:
    options = ["--devices", "20", "--idle-s", "3", "--rounds", "3", "--web", "2"]
    shown, (figures,) = _run(tmp_path, "fleet", *options)
    assert "20 lines, 2 web processes" in shown
    assert figures["job"]["devices"] == 2
    assert {"web", "broker-site", "coordinator"} < set(figures["idle_cpu"])
    assert figures["above_empty_bytes"]["web"] < 200e6


def test_flood_prints_both_medians_and_their_ratio(tmp_path: Path) -> None:
    options = ["--turns", "1", "--seconds", "6", "--rounds", "3", "--virtual"]
    shown, figures = _run(tmp_path, "flood", *options)
    assert "without" in shown and "ratio" in shown
    assert len(figures["quiet_s"]) == len(figures["flooded_s"]) == 1
    assert all(figures["counts"][name] > 0 for name in ("frames", "malformed", "reconnects"))
