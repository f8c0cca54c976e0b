"""The tutorial on strategies runs as printed, with fewer steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.compose import ROOT

PAGE = (ROOT / "docs" / "guides" / "own-strategy.md").read_text()
SHORTER = {'"rounds": 4': '"rounds": 1', '"local_steps": 10': '"local_steps": 1'}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def _run(command: list[str], folder: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tutorial_strategies_train(tmp_path: Path) -> None:
    for line in _blocks("sh")[0].splitlines():
        _run(["sh", "-c", line.replace(".venv/bin/python", sys.executable)], tmp_path)
    program, optimizer = _blocks("python")
    for full, short in SHORTER.items():
        assert full in program
        program = program.replace(full, short)
    code = (
        f"{program}\n{optimizer}\n"
        "from fedcore.aggregation.folds import WEIGHTED_MEAN\n"
        'signs = Strategy("sign", (), WEIGHTED_MEAN, (sign_step(1e-3),))\n'
        'for result in simulate(spec, devices, "runs/signs", strategy=signs):\n'
        '    print(result.number, result.mean["loss"])\n'
    )
    output = _run([sys.executable, "-c", code], tmp_path)
    rows = [line.split() for line in output.splitlines()]
    assert [int(number) for number, _ in rows] == [0, 1, 0, 1]
    losses = [float(loss) for _, loss in rows]
    assert losses[0] == losses[2] and losses[1] != losses[0] and losses[3] != losses[2]


def test_tutorial_strategy_fits_20_lines() -> None:
    program = _blocks("python")[0]
    assert len([line for line in program.splitlines() if line.strip()]) <= 22
