"""Studies that really train: equal to the simulation, and resumed after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedcore.simulate.__main__ import main as simulate
from fedcore.study.__main__ import main
from tests.compose import ROOT

STUDY = """
title = "Two rates"
data = "rows.jsonl"
seeds = [3]
metrics = ["loss", "worst", "aggregation_error"]

[spec]
rounds = 1
deterministic = true
train = {local_steps = 1, batch_size = 2}
data = {max_source_tokens = 32, max_target_tokens = 8, max_validation_examples = 2}

[[split]]
name = "natural"
partition = "column:kind"
"""
METHOD = """
[[method]]
name = "rate {0}"
spec = {{train = {{learning_rate = {0}}}}}
"""
FULL = """
[[method]]
name = "every weight"
spec = {adapter = {kind = "full"}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    rows = [
        {"text": f"The {kind} number {n} is here today", "summary": f"{kind} {n}", "kind": kind}
        for kind in ("cat", "dog")
        for n in range(10)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "rates.toml"
    file.write_text(STUDY + METHOD.format(1e-3) + METHOD.format(1e-2))
    return file


def arguments(study: Path) -> list[str]:
    place = str(study.parent)
    return [str(study), "--out", f"{place}/out", "--data-dir", place, "--threads", "1"]


def test_run_equals_simulation_and_runs_once(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(study)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/2] rate-0.001--natural--seed3: loss ")
    assert lines[1].endswith("all done")
    stored = {path.name: path.read_bytes() for path in (study.parent / "out" / "runs").iterdir()}
    assert set(stored) == {f"rate-{rate}--natural--seed3.json" for rate in ("0.001", "0.01")}

    results = study.parent / "results.json"
    options = "--partition column:kind --rounds 1 --local-steps 1 --batch-size 2 --seed 3"
    more = "--max-source-tokens 32 --max-target-tokens 8 --max-validation-examples 2 --threads 1"
    data = ["--data", f"{study.parent}/rows.jsonl", "--json", str(results), "--deterministic"]
    rate = ["--learning-rate", "1e-3"]
    assert simulate([*data, *rate, *options.split(), *more.split()]) == 0
    simulated = json.loads(results.read_text())["rounds"]
    recorded = json.loads(stored["rate-0.001--natural--seed3.json"])
    for ours, theirs in zip(recorded["rounds"], simulated, strict=True):
        assert ours["sha256"] == theirs["sha256"] and ours["mean"] == theirs["mean"]

    capsys.readouterr()
    assert main(arguments(study)) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # where the report is
    runs = study.parent / "out" / "runs"
    assert stored == {path.name: path.read_bytes() for path in runs.iterdir()}


def test_diverged_training_is_a_result(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Rates of 10 and 100 leave the range of fp32 within a few rounds on every processor.
    diverging = 'local_steps = 20, optimizer = "sgd", clip_norm = 0.0, learning_rate = 10.0'
    text = STUDY.replace("local_steps = 1", diverging).replace(
        "rounds = 1", "rounds = 4\nstrategy = {server_learning_rate = 100.0}"
    )
    study.write_text(text + FULL)
    assert main(arguments(study)) == 0
    assert "failed: " in capsys.readouterr().out
    assert "## Runs that failed" in (study.parent / "out" / "report.md").read_text()
    assert main([*arguments(study), "--list"]) == 0
    assert capsys.readouterr().out.startswith("failed    every-weight")


@pytest.mark.slow
def test_killed_study_resumes(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed between two runs or within one: the finished runs stay, bit for bit."""
    first = study.parent / "out" / "runs" / "rate-0.001--natural--seed3.json"
    command = [sys.executable, "-m", "fedcore.study", *arguments(study)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        for _ in range(1200):
            if first.exists() or child.poll() is not None:
                break
            time.sleep(0.1)
        os.kill(child.pid, signal.SIGKILL)
    stored = first.read_bytes()
    (study.parent / "out" / ".work" / "99999999").mkdir(parents=True, exist_ok=True)
    assert main(arguments(study)) == 0
    assert first.read_bytes() == stored
    assert not list((study.parent / "out" / ".work").iterdir())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["[2/2] rate-0.01--natural--seed3"]
