"""``python -m benchmarks`` as a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import lowrank, saved_activations, step, wire
from benchmarks.__main__ import COMMANDS, PROGRAMS, main
from fedcore.architecture.sizes import Architecture


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


OPTIONS = {
    "round": ("--payload", "enormous", "lora"),
    "chaos": ("--devices", "9", "choose from"),
    "fleet": ("--payload", "enormous", "lora"),
    "flood": ("--turns", "many", "invalid int"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_options_of_programs_are_passed_on(name: str) -> None:
    option, value, hint = OPTIONS[name]
    command = [sys.executable, "-m", "benchmarks", name]
    done = subprocess.run([*command, option, value], capture_output=True, text=True)
    assert done.returncode == 2
    assert value in done.stderr and hint in done.stderr
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and option in shown.stdout


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"    {name} " in text for name in (*COMMANDS, *PROGRAMS))


def test_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fold", "--nonsense"])
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["fedyogi", "fednova", "qfedavg", "scaffold"])
def test_fold_times_any_strategy(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--updates", "3", "--parameters", "300000", "--repeat", "1", "--threads", "1"]
    assert main(["fold", *small, "--strategy", strategy, "--folder", str(tmp_path)]) == 0
    assert "two orders of updates: 1 result" in capsys.readouterr().out


def test_lowrank_factors_equal_the_dense_product(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts = lowrank.adapters(120, 90, 5, 4)
    (b, a), (dense_b, dense_a) = lowrank.by_factors(parts, 4), lowrank.by_dense(parts, 4)
    assert torch.allclose(b @ a, dense_b @ dense_a, atol=1e-5 * float((b @ a).norm()))
    small = ["--models", "google/flan-t5-small", "--devices", "2", "--rank", "2", "--repeat", "1"]
    assert main(["lowrank", *small]) == 0
    assert "| flan-t5-small | q, v | 384 x 512 |" in capsys.readouterr().out


def test_step_compares_the_loops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"google/flan-t5-small": Architecture(32, 8, 4, 64, 2, 2, 3159)}
    monkeypatch.setattr(step, "KNOWN", sizes)
    monkeypatch.setattr(step, "SOURCE", (16, 24))
    monkeypatch.setattr(step, "TARGET", 6)
    monkeypatch.setattr(step, "BATCH", 2)
    monkeypatch.setattr(step, "prefers_bf16", lambda: False)
    monkeypatch.setattr(step, "peak_flops", lambda precision: 1e9)
    assert main(["step", "--adapter", "lora", "--steps", "2", "--turns", "1"]) == 0
    assert "| plain loop, fp32 |" in capsys.readouterr().out


def test_wire_measures_a_codec(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wire, "SIZES", (3000, 500))
    assert main(["wire", "--repeat", "1", "--chains", "int8"]) == 0
    assert "| int8 |" in capsys.readouterr().out


def test_saved_activations_fits_coefficients(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saved_activations, "SHAPES", saved_activations.SHAPES[:2])
    options = ["--kernels", "fast", "--adapters", "lora", "--precisions", "fp32"]
    assert main(["saved_activations", *options]) == 0
    assert "| fast | lora | fp32 |" in capsys.readouterr().out
