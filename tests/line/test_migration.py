"""An installed site from before the line migrates with its devices and their credentials."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.compose import ROOT
from webapp.devices.models import hashed

DEVICE = {
    "id": 7,
    "name": "pi-kitchen",
    "role": "trainer",
    "profile": '{"cores": 4}',
    "agent_version": "0.1.0",
    "boot_id": "boot-1",
    "last_seen_at": "2026-11-01 12:00:00",
    "last_sample_seq": 41,
    "activity": "{}",
    "created_at": "2026-10-01 12:00:00",
}
CREDENTIAL = {
    "device_id": 7,
    "token_hash": hashed("the device's token"),
    "broker_user": "edgewise-device-7",
    "broker_password_hash": "0" * 64,
    "created_at": "2026-10-01 12:00:00",
}


QUESTION = """
from webapp.devices.models import Device
from webapp.line.opening import open_line
print(open_line("the device's token"))
print(Device.objects.values_list("name", "boot_id", "last_sample_seq", "line_epoch").get())
"""


def _manage(folder: Path, *arguments: str) -> str:
    env = {
        **os.environ,
        "EDGEWISE_VAR_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'site.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "webapp.settings",
        "EDGEWISE_SECRET_KEY": "for-tests-only-" + "0123456789" * 5,
    }
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _insert(folder: Path, table: str, values: dict[str, object]) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    with sqlite3.connect(folder / "site.sqlite3") as database:
        database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))


def test_installed_site_keeps_devices_and_credentials(tmp_path: Path) -> None:
    _manage(tmp_path, "migrate", "devices", "0001", "--verbosity", "0")
    _insert(tmp_path, "devices_device", DEVICE)
    _insert(tmp_path, "devices_credential", CREDENTIAL)
    _manage(tmp_path, "migrate", "--verbosity", "0")
    assert _manage(tmp_path, "shell", "--no-imports", "-c", QUESTION).splitlines()[-2:] == [
        "OpenedLine(device_id=7, epoch=1, boot_id='')",
        "('pi-kitchen', 'boot-1', 41, 1)",
    ]
