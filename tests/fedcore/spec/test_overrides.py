"""Options that differ by device: an entry about a device that is not there is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedcore.errors import SpecError
from fedcore.plan.__main__ import main as plan
from fedcore.simulate.__main__ import main as simulate
from fedcore.spec.overrides import Member, stranger_faults
from fedcore.spec.parse import parse_spec
from tests.fedcore.conftest import sentences, write_jsonl

MEMBERS = [Member(0, "attic", "raspberry-pi-5"), Member(1, "barn")]
MIXED = {"aggregation": "flexlora", "rank": 8}


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        ({"adapter": {**MIXED, "ranks": ["4", "brn=2"]}}, "adapter.ranks"),
        ({"adapter": {**MIXED, "alphas": ["brn=2"]}}, "adapter.alphas"),
        ({"adapter": {**MIXED, "modules": ["brn=q"]}}, "adapter.modules"),
        (
            {"method": {"name": "pftt", "own_ranks": ["brn=2"]}, "adapter": {"kind": "bottleneck"}},
            "method.own_ranks",
        ),
        (
            {"method": {"name": "pfit", "rewards": ["overlap=1", "leak=1"],
                        "weights": ["1+0", "brn=0+1"]}},
            "method.weights",
        ),
    ],
)  # fmt: skip
def test_a_name_that_nobody_has_is_a_fault_of_its_option(groups: dict[str, Any], path: str) -> None:
    (fault,) = stranger_faults(parse_spec(groups), MEMBERS)
    assert fault.path == path
    assert "'brn'" in fault.message and "attic, barn" in fault.message


def test_names_machines_and_turns_are_none() -> None:
    words = ["4", "auto", "barn=2", "raspberry-pi-5=1"]
    spec = parse_spec({"adapter": {**MIXED, "ranks": words}})
    assert not stranger_faults(spec, MEMBERS)
    faults = stranger_faults(spec, [])
    assert len(faults) == 2 and all("there is none" in fault.message for fault in faults)


def test_a_simulation_refuses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_jsonl(tmp_path / "rows.jsonl", sentences(1, 30)))
    rule = ["--data", data, "--adapter-rule", "flexlora", "--ranks", "device-0=4,foo=4"]
    assert simulate(rule) == 2
    errors = capsys.readouterr().err
    assert "adapter.ranks: 'foo=4': no device of this job is called 'foo'" in errors
    assert "device-0, device-1, device-2" in errors


def test_the_planner_refuses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"name": "pi", "machine": "raspberry-pi-5", "link": "lan", "examples": 80}
    (tmp_path / "fleet.json").write_text(json.dumps({"device": [row]}))
    files = ["--devices", str(tmp_path / "fleet.json"), "--spec", str(tmp_path / "job.json")]
    for entry, code in (("pi=4", 0), ("raspberry-pi-5=4", 0), ("py=4", 2)):
        (tmp_path / "job.json").write_text(json.dumps({"adapter": {**MIXED, "ranks": [entry]}}))
        assert plan(["--model", "nano", *files]) == code
    assert "'py=4'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("groups", "path"),
    [
        ({"adapter": {**MIXED, "ranks": ["²"]}}, "adapter.ranks"),
        (
            {"adapter": {"pattern": ["encoder.block.0.layer.0.SelfAttention.q=²"]}},
            "adapter.pattern",
        ),
        (
            {"method": {"name": "pftt", "own_ranks": ["²"]}, "adapter": {"kind": "bottleneck"}},
            "method.own_ranks",
        ),
    ],
)
def test_superscript_digit_is_no_rank(groups: dict[str, Any], path: str) -> None:
    """``"²".isdigit()`` holds, but ``int("²")`` raises ValueError."""
    with pytest.raises(SpecError) as error:
        parse_spec(groups)
    assert path in {fault.path for fault in error.value.faults}
