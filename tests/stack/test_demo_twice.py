"""A second demo in the same folder says where the first one runs, and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.stack.folder_lock import FILE, FolderLock
from workers.stack.processes import StartError

pytestmark = pytest.mark.stack


def second_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers.demo", "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_second_demo_names_address_and_process(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    starting = second_demo(tmp_path)
    first.note_url("http://127.0.0.1:8123")
    running = second_demo(tmp_path)
    first.release()
    assert (starting.returncode, running.returncode) == (1, 1)
    here = f"a site of this folder ({tmp_path})"
    assert f"{here} is starting (process {os.getpid()})" in starting.stderr
    assert running.stderr == (
        f"{here} already runs at http://127.0.0.1:8123 (process {os.getpid()}); open it, stop it "
        f"with `kill {os.getpid()}`, or choose another --folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [FILE], "no ports were chosen anew"


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from workers.stack.folder_lock import FolderLock;"
        "FolderLock(pathlib.Path(sys.argv[1])).note_url('http://gone'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -9
    FolderLock(tmp_path).release()


@pytest.mark.parametrize("text", ["", "nonsense", "{}", json.dumps({"pid": "x", "url": 1})])
def test_unreadable_note_is_no_traceback(tmp_path: Path, text: str) -> None:
    first = FolderLock(tmp_path)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(StartError, match="is starting or stopping in"):
        FolderLock(tmp_path)
    first.release()
