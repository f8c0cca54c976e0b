"""This device's profile, measured once and kept; torch runs in a process of its own."""

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
FIGURES = 2  # raised whenever a profile has new figures: a former one is measured again
PATIENCE_S = 120
SENSOR_S = 20.0

log = logging.getLogger(__name__)


def profile(settings: AgentSettings, again: bool = False) -> dict[str, Any]:
    """The kept profile; measured where there is none, or for another machine or thread count."""
    key, kept = _key(settings.threads), _kept(settings)
    if not again and kept and kept["key"] == key:
        return dict(kept["profile"])
    found = {**_measure(settings), "measured_at": Clock().iso()}
    for missing in found.get("not_measured", []):
        log.warning("not measured: %s", missing)
    write_json(settings.state_dir / FILE, {"key": key, "profile": found})
    return found


def kept_profile(settings: AgentSettings) -> dict[str, Any] | None:
    kept = _kept(settings)
    return dict(kept["profile"]) if kept else None


def _kept(settings: AgentSettings) -> dict[str, Any] | None:
    """None where nothing was measured, or the file is not what it was."""
    kept = read_json(settings.state_dir / FILE)
    whole = isinstance(kept, dict) and "key" in kept and isinstance(kept.get("profile"), dict)
    return kept if whole else None


def power_sensor(profile: Mapping[str, Any]) -> str:
    """Which sensor measures this device now, asked in a process of its own; '' where none does."""
    used = [str(profile.get("accelerator_uuid") or "-")] if profile.get("accelerator") else []
    command = [sys.executable, "-m", "workers.agent.power", *used]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=SENSOR_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("the power sensors cannot be looked for: %s", error)
        return ""
    return done.stdout.strip()


def _key(threads: int) -> list[Any]:
    """What the figures depend on."""
    machine = [platform.node(), platform.machine(), os.cpu_count()]
    return [*machine, threads, _version("torch"), FIGURES]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise AgentError(
            f"{package} is not installed; run `pip install -r requirements-device.txt`"
        ) from error


def _measure(settings: AgentSettings) -> dict[str, Any]:
    threads, folder = str(settings.threads), str(settings.state_dir)
    command = [sys.executable, "-m", "workers.agent.profile.measure", threads, folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise AgentError(
            "the hardware could not be measured in time; is the machine busy?"
        ) from error
    if done.returncode:
        raise AgentError(f"the hardware could not be measured: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
