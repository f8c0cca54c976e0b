"""This device's hardware profile, measured once and stored; torch runs in a separate process."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from workers.agent.agent_errors import AgentError
from workers.agent.agent_settings import AgentSettings
from workers.agent.http.server_clock import Clock
from workers.agent.profile.local_datasets import ROOT
from workers.agent.state.files import read_json, write_json

FILE = "profile.json"
FIGURES = 2  # raised whenever profiles get new figures: older profiles are measured again
MEASURE_S = 120
SENSOR_S = 20.0

log = logging.getLogger(__name__)


def profile(settings: AgentSettings, again: bool = False) -> dict[str, Any]:
    """The stored profile; measured if missing, or of another machine or thread count."""
    key = profile_key(settings.threads)
    record = _stored_record(settings)
    if not again and record and record["key"] == key:
        return dict(record["profile"])
    figures = {**_measure(settings), "measured_at": Clock().iso()}
    for missing in figures.get("not_measured", []):
        log.warning("not measured: %s", missing)
    write_json(settings.state_dir / FILE, {"key": key, "profile": figures})
    return figures


def profile_key(threads: int) -> list[Any]:
    """What the figures depend on. Raises AgentError without torch."""
    try:
        torch_version = metadata.version("torch")
    except metadata.PackageNotFoundError as error:
        raise AgentError(
            "torch is not installed; run `pip install -r requirements-device.txt`"
        ) from error
    return [
        platform.node(),
        platform.machine(),
        os.cpu_count(),
        threads,
        torch_version,
        FIGURES,
    ]


def stored_profile(settings: AgentSettings) -> dict[str, Any] | None:
    record = _stored_record(settings)
    return dict(record["profile"]) if record else None


def _stored_record(settings: AgentSettings) -> dict[str, Any] | None:
    """None where nothing was measured, or the file is malformed."""
    record = read_json(settings.state_dir / FILE)
    valid = isinstance(record, dict) and "key" in record and isinstance(record.get("profile"), dict)
    return record if valid else None


def power_sensor(profile: Mapping[str, Any]) -> str:
    """The sensor that measures this device now, found by a separate process; '' without one."""
    used = [str(profile.get("accelerator_uuid") or "-")] if profile.get("accelerator") else []
    command = [sys.executable, "-m", "workers.agent.power", *used]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=SENSOR_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("cannot look for power sensors: %s", error)
        return ""
    return done.stdout.strip()


def _measure(settings: AgentSettings) -> dict[str, Any]:
    threads, folder = str(settings.threads), str(settings.state_dir)
    command = [sys.executable, "-m", "workers.agent.profile.measure", threads, folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=MEASURE_S)
    except subprocess.TimeoutExpired as error:
        raise AgentError("measuring the hardware took too long; is the machine busy?") from error
    if done.returncode:
        raise AgentError(f"cannot measure the hardware: {done.stderr.strip()[-500:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
