"""What a person wants to know about the agent on this device."""

from __future__ import annotations

import time
from typing import Any

from fedcore.hardware.links import INSTANT
from workers.agent.agent_settings import VERSION, AgentSettings
from workers.agent.http import link_emulation as links
from workers.agent.http.server_clock import seconds_of
from workers.agent.profile import local_datasets, probe
from workers.agent.state import credential as credentials
from workers.agent.state.database import StateDatabase
from workers.agent.state.lock import holder_of
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState

RATES = {
    "memory_bandwidth_bps": "memory",
    "disk_read_bps": "disk read",
    "disk_write_bps": "disk write",
}
ONLINE_WITHIN_S = 150.0  # a little above the longest pause between measurements


def status(settings: AgentSettings) -> dict[str, Any]:
    """Plain values, also for ``--json``; without secrets."""
    known = credentials.load(settings.state_dir)
    found: dict[str, Any] = {
        "version": VERSION,
        "state_dir": str(settings.state_dir),
        "enrolled": known is not None,
        "server": known.server if known else None,
        "device": {"id": known.device_id, "name": known.name, "role": known.role}
        if known
        else None,
        "pid": holder_of(settings.state_dir),
        "online": False,
        "last_contact_at": None,
        "activity": None,
        "outbox": 0,
        "datasets": [vars(item) for item in local_datasets.load(settings.state_dir)],
        "link": links.settle(settings).name,
        "profile": probe.kept_profile(settings),
    }
    if settings.database.exists():
        found |= _from_store(settings, running=found["pid"] is not None)
    return found


def _from_store(settings: AgentSettings, running: bool) -> dict[str, Any]:
    store = StateDatabase(settings.database)
    board = SharedState(store)
    contact, activity = board.noted("last_contact"), board.activity()
    found = {
        "online": running and bool(contact) and time.time() - seconds_of(contact) < ONLINE_WITHIN_S,
        "last_contact_at": contact or None,
        "activity": activity.to_json() if running and activity else None,
        "outbox": len(Outbox(store)),
    }
    store.close()
    return found


def as_text(found: dict[str, Any]) -> str:
    device = found["device"]
    if device is None:
        lines = [f"not enrolled (state folder {found['state_dir']})"]
    else:
        lines = [f"{device['name']} (device {device['id']}, {device['role']}) at {found['server']}"]
    lines.append(_running_text(found))
    if found["activity"]:
        doing = found["activity"]
        step = f", step {doing['step']} of {doing['steps_total']}" if doing["steps_total"] else ""
        lines.append(f"assignment   {doing['assignment']}: {doing['phase']}{step}")
    if found["link"] != INSTANT.name:
        lines.append(f"link         as slow as {found['link']}")
    lines.append(f"outbox       {found['outbox']} samples wait for the server")
    for item in found["datasets"]:
        lines.append(f"dataset      {item['name']}: {item['source']} {item['domain']}".rstrip())
    if found["profile"]:
        lines.append(profile_text(found["profile"]))
    return "\n".join(lines)


def _running_text(found: dict[str, Any]) -> str:
    if found["pid"] is None:
        return "agent        not running"
    contact = "in touch with the server" if found["online"] else "without the server"
    return f"agent        running (process {found['pid']}), {contact}"


def profile_text(profile: dict[str, Any]) -> str:
    gpu = profile["accelerator"]
    lines = [
        f"hardware     {profile['kind']}, {profile['cpu']}, {profile['cores']} cores, "
        f"{profile['memory_bytes'] / 1e9:.1f} GB",
        f"accelerator  {gpu} {profile['accelerator_memory_bytes'] / 1e9:.0f} GB" if gpu else "",
        f"measured     {', '.join(_figures(profile))} with {profile['threads']} threads, "
        f"in {profile['probe_s']} s",
        *(f"not measured {note}" for note in profile.get("not_measured", [])),
    ]
    return "\n".join(line for line in lines if line)


def _figures(profile: dict[str, Any]) -> list[str]:
    """What was measured, with units; what was not is left out."""
    found = [
        f"{name} {value / 1e9:.0f} GFLOP/s{' (used)' if name == profile.get('precision') else ''}"
        for name, value in profile["peak_flops"].items()
        if value
    ]
    for key, name in RATES.items():
        if value := profile.get(key):
            found.append(f"{name} {value / 1e9:.2g} GB/s")
    if idle := profile.get("idle_watts"):
        found.append(f"idle {idle:.1f} W by {profile['power_sensor']}")
    return found
