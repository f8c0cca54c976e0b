"""The agent's status on this device, as values and as text."""

from __future__ import annotations

import time
from typing import Any

from fedcore.hardware.links import INSTANT
from workers.agent.agent_settings import VERSION, AgentSettings
from workers.agent.http import link_emulation
from workers.agent.http.server_clock import seconds_of
from workers.agent.profile import local_datasets, probe
from workers.agent.state import credentials
from workers.agent.state.database import StateDatabase
from workers.agent.state.lock import holder_of
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState

RATES = {
    "memory_bandwidth_bps": "memory",
    "disk_read_bps": "disk read",
    "disk_write_bps": "disk write",
}
ONLINE_WITHIN_S = 150.0  # a little above the longest interval between measurements


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
        "last_contact_at": None,
        "activity": None,
        "outbox": 0,
        "datasets": [vars(item) for item in local_datasets.load(settings.state_dir)],
        "link": link_emulation.choose_link(settings).name,
        "profile": probe.stored_profile(settings),
    }
    if settings.database.exists():
        running = values["pid"] is not None
        database = StateDatabase(settings.database)
        shared_state = SharedState(database)
        contact, activity = shared_state.read_note("last_contact"), shared_state.activity()
        recent = bool(contact) and time.time() - seconds_of(contact) < ONLINE_WITHIN_S
        values |= {
            "online": running and recent,
            "last_contact_at": contact or None,
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
        contact = "connected to the server" if values["online"] else "no contact with the server"
        lines.append(f"agent        running (process {values['pid']}), {contact}")
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
