"""The agent's status on this device, as values and as text."""

from __future__ import annotations

import json
import shutil
from typing import Any

from fedcore.hardware.links import INSTANT
from workers.agent.agent_settings import VERSION, AgentSettings
from workers.agent.control.health import full_disk_text
from workers.agent.http import link_emulation
from workers.agent.profile import local_datasets, probe
from workers.agent.state import credentials
from workers.agent.state.database import StateDatabase
from workers.agent.state.lock import holder_of
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import CONTACT_NOTE, LINE_NOTE, SharedState

RATES = {
    "memory_bandwidth_bps": "memory",
    "disk_read_bps": "disk read",
    "disk_write_bps": "disk write",
}


def status(settings: AgentSettings) -> dict[str, Any]:
    """Plain values without secrets, also for ``--json``."""
    credential = credentials.load(settings.state_dir)
    device = None
    if credential is not None:
        device = {"id": credential.device_id, "name": credential.name, "role": credential.role}
    values: dict[str, Any] = {
        "version": VERSION,
        "state_dir": str(settings.state_dir),
        "enrolled": credential is not None,
        "server": credential.server if credential else None,
        "device": device,
        "pid": holder_of(settings.state_dir),
        "online": False,
        "channel": None,
        "last_contact_at": None,
        "problem": "",
        "takes_no_work": "",
        "activity": None,
        "outbox": 0,
        "datasets": [vars(item) for item in local_datasets.load(settings.state_dir)],
        "link": link_emulation.choose_link(settings).name,
        "profile": probe.stored_profile(settings),
    }
    free = shutil.disk_usage(settings.state_dir).free if settings.state_dir.is_dir() else 0
    if values["pid"] is not None and free < settings.min_free_bytes:
        values["takes_no_work"] = full_disk_text(settings.state_dir, free, settings.min_free_bytes)
    if settings.database.exists():
        running = values["pid"] is not None
        database = StateDatabase(settings.database)
        shared_state = SharedState(database)
        activity = shared_state.activity()
        line = json.loads(shared_state.read_note(LINE_NOTE) or "{}")
        values |= {
            "online": running and bool(line.get("connected_at")),
            "channel": (line.get("channel") or None) if running else None,
            "last_contact_at": shared_state.read_note(CONTACT_NOTE) or None,
            "problem": str(line.get("problem") or "") if running else "",
            "activity": activity.to_json() if running and activity else None,
            "outbox": len(Outbox(database)),
        }
        database.close()
    return values


def as_text(values: dict[str, Any]) -> str:
    device = values["device"]
    if device is None:
        lines = [f"not enrolled (state folder {values['state_dir']})"]
    else:
        name = f"{device['name']} (device {device['id']}, {device['role']})"
        lines = [f"{name} at {values['server']}"]
    if values["pid"] is None:
        lines.append("agent        not running")
    else:
        problem = f": {values['problem']}" if values["problem"] else ""
        way = " by long poll" if values["channel"] == "poll" else ""
        contact = f"connected{way}" if values["online"] else f"no line to the server{problem}"
        lines.append(f"agent        running (process {values['pid']}), {contact}")
    if reason := values["takes_no_work"]:
        lines.append(f"work         takes none: {reason}")
    if activity := values["activity"]:
        steps = activity["steps_total"]
        step = f", step {activity['step']} of {steps}" if steps else ""
        lines.append(f"assignment   {activity['assignment']}: {activity['phase']}{step}")
    if values["link"] != INSTANT.name:
        lines.append(f"link         emulating {values['link']}")
    lines.append(f"outbox       {values['outbox']} samples waiting for the server")
    for item in values["datasets"]:
        lines.append(f"dataset      {item['name']}: {item['source']} {item['domain']}".rstrip())
    if values["profile"]:
        lines.append(profile_text(values["profile"]))
    return "\n".join(lines)


def profile_text(profile: dict[str, Any]) -> str:
    """The hardware and the measured figures; missing ones are left out."""
    figures = [
        f"{name} {value / 1e9:.0f} GFLOP/s{' (used)' if name == profile.get('precision') else ''}"
        for name, value in profile["peak_flops"].items()
        if value
    ]
    for key, name in RATES.items():
        if value := profile.get(key):
            figures.append(f"{name} {value / 1e9:.2g} GB/s")
    if idle := profile.get("idle_watts"):
        figures.append(f"idle {idle:.1f} W by {profile['power_sensor']}")
    cpu = f"{profile['kind']}, {profile['cpu']}, {profile['cores']} cores"
    lines = [f"hardware     {cpu}, {profile['memory_bytes'] / 1e9:.1f} GB"]
    if gpu := profile["accelerator"]:
        lines.append(f"accelerator  {gpu} {profile['accelerator_memory_bytes'] / 1e9:.0f} GB")
    conditions = f"with {profile['threads']} threads, in {profile['probe_s']} s"
    lines.append(f"measured     {', '.join(figures)} {conditions}")
    lines += [f"not measured {note}" for note in profile.get("not_measured", [])]
    return "\n".join(lines)
