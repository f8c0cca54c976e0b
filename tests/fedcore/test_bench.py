"""``python -m fedcore.bench`` as a command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fedcore.bench.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_options_of_rounds_are_passed_on() -> None:
    command = [sys.executable, "-m", "fedcore.bench", "round", "--payload", "enormous"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "enormous" in done.stderr and "lora" in done.stderr


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fold", "--nonsense"])
    assert "--nonsense" in capsys.readouterr().err
