"""Fleet files and the planner's command that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedcore.errors import SpecError
from fedcore.hardware.links import LINKS
from fedcore.plan.__main__ import main
from fedcore.plan.fleet_file import fleet_from
from fedcore.spec.job import JobSpec

ROW: dict[str, Any] = {"name": "a", "machine": "jetson-nano", "link": "lte", "examples": 50}
FIGURES = {"peak_flops": {"fp32": 1e11}, "memory_bandwidth_bps": 1e10, "memory_bytes": 4e9}


def test_fleet_errors_are_reported_together() -> None:
    rows = [
        {**ROW, "colour": "red", "examples": 0, "lengths": [0, 3], "mfu": 2},
        {**ROW, "name": "", "machine": {**FIGURES, "memory_bytes": -1, "cache": 1}, "link": "van"},
        {**ROW, "machine": "cray-1", "link": {"up_bps": 0, "down_bps": 5, "speed": 1}},
        {**ROW, "machine": {"peak_flops": {"fp32": 1e9}}, "link": {"up_bps": 1}},
        "pi",
    ]
    with pytest.raises(SpecError) as caught:
        fleet_from(rows, JobSpec())
    paths = [fault.path for fault in caught.value.faults]
    for expected in (
        "device 1: colour", "device 1: examples", "device 1: lengths", "device 1: mfu",
        "device 2: name", "device 2: machine", "device 2: machine.cache", "device 2: link",
        "device 3: machine", "device 3: link.speed", "device 3: link: up_bps",
        "device 4: machine.memory_bytes", "device 4: machine.memory_bandwidth_bps",
        "device 4: link", "device 5",
    ):  # fmt: skip
        assert expected in paths, (expected, paths)


@pytest.mark.parametrize("rows", [[], [ROW, ROW]])
def test_empty_fleet_or_duplicate_names_are_refused(rows: list[Any]) -> None:
    with pytest.raises(SpecError, match="devices"):
        fleet_from(rows, JobSpec())


def test_known_link_with_custom_figures() -> None:
    row = {**ROW, "machine": FIGURES, "link": {"name": "lte", "up_bps": 5.0}, "lengths": [90, 9]}
    candidate = fleet_from([row], JobSpec())[0]
    assert candidate.link is not None
    assert (candidate.link.up_bps, candidate.link.down_bps) == (5.0, LINKS["lte"].down_bps)
    assert (candidate.source, candidate.longest) == (90.0, (512.0, 64.0))


FLEET = """
[[device]]
name = "pi"
machine = "raspberry-pi-5"
link = "wifi-5"
examples = 400
lengths = [300, 40]
[[device]]
name = "orin"
machine = "jetson-agx-orin"
link = "lte"
examples = 400
"""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    (tmp_path / "job.toml").write_text("rounds = 3\n[train]\nlocal_steps = 10\n")
    files = ["--devices", str(tmp_path / "fleet.toml"), "--spec", str(tmp_path / "job.toml")]
    assert main(["--model", "google/flan-t5-base", *files]) == 0
    text = capsys.readouterr().out
    assert "pi is the slowest" in text
    assert "Biggest saving" in text
    assert main(["--model", "google/flan-t5-base", *files, "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert [row["steps"] for row in output["devices"]] == [10, 10]
    assert output["rounds"] == 3
    assert output["devices"][1]["waiting_j"] is None


@pytest.mark.parametrize(
    ("fleet_text", "job_text", "model", "words"),
    [
        ("[[device]]\nlink = 'van'", "", "nano", "device 1: machine"),
        ("x = 1", "", "nano", "give [[device]] tables"),
        ("[[", "", "nano", "cannot be read"),
        (FLEET, "rounds = 0", "nano", "rounds"),
        (FLEET, "", "someone/some-t5", "are not known"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fleet_text: str,
    job_text: str,
    model: str,
    words: str,
) -> None:
    (tmp_path / "fleet.toml").write_text(fleet_text)
    (tmp_path / "job.toml").write_text(job_text)
    files = ["--devices", str(tmp_path / "fleet.toml"), "--spec", str(tmp_path / "job.toml")]
    assert main(["--model", model, *files]) == 2
    assert words in capsys.readouterr().err
