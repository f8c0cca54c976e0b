"""``python -m benchmarks`` as a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import lowrank
from benchmarks.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_options_of_rounds_are_passed_on() -> None:
    command = [sys.executable, "-m", "benchmarks", "round", "--payload", "enormous"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "enormous" in done.stderr and "lora" in done.stderr


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fold", "--nonsense"])
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["fedyogi", "fednova", "qfedavg", "scaffold"])
def test_the_fold_of_any_strategy_is_timed(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--updates", "3", "--parameters", "300000", "--repeat", "1", "--threads", "1"]
    assert main(["fold", *small, "--strategy", strategy, "--folder", str(tmp_path)]) == 0
    assert "two orders of updates: 1 result" in capsys.readouterr().out


def test_thin_factors_and_the_dense_matrix_serve_the_same_product(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = lowrank.adapters(120, 90, 5, 4)
    (b, a), (dense_b, dense_a) = lowrank.by_factors(parts, 4), lowrank.by_dense(parts, 4)
    assert torch.allclose(b @ a, dense_b @ dense_a, atol=1e-5 * float((b @ a).norm()))
    small = ["--models", "google/flan-t5-small", "--devices", "2", "--rank", "2", "--repeat", "1"]
    assert main(["lowrank", *small]) == 0
    assert "| flan-t5-small | q, v | 384 x 512 |" in capsys.readouterr().out
