"""``python -m fedcore.plan --json``: only JSON on stdout, whatever libraries print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PRINTS = """
import ctypes, os, sys
from fedcore.plan.__main__ import native_output_to_stderr
native = ctypes.CDLL(None)
print("before")
with native_output_to_stderr():
    native.puts(b"stray, kept back by C")
    os.write(1, b"stray, at once\\n")
print("after")
native.puts(b"later")
"""


def test_native_output_goes_to_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTS], capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.splitlines()) == ["after", "before", "later"]
    assert "stray, kept back by C" in done.stderr and "stray, at once" in done.stderr


def test_a_plan_of_fedpipe_is_json(tmp_path: Path) -> None:
    row = {"name": "pi", "machine": "raspberry-pi-5", "link": "lan", "examples": 80}
    job = {"method": {"name": "fedpipe", "memory_budget_mb": 600},
           "adapter": {"aggregation": "flexlora"}}  # fmt: skip
    (tmp_path / "fleet.json").write_text(json.dumps({"device": [row]}))
    (tmp_path / "job.json").write_text(json.dumps(job))
    files = ["--devices", str(tmp_path / "fleet.json"), "--spec", str(tmp_path / "job.json")]
    command = [sys.executable, "-m", "fedcore.plan", "--model", "nano", "--json", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (device,) = json.loads(done.stdout)["devices"]
    assert device["planned"]["matrices"] > 0
