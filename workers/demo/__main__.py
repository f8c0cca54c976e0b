"""Start a site, enrol three devices, run a job, and print its progress."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

from workers.demo.job_summary import summary
from workers.demo.scenario import FLEET, SPEC, write_dialogues
from workers.stack.folder_lock import FolderLock
from workers.stack.processes import StartError
from workers.stack.site import OVER, Site, make_token
from workers.stack.stack import Stack

ADMIN = "admin"
ONLINE_WITHIN_S = 120.0
ROTATE_INTERVAL_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="folder for all data")
    parser.add_argument("--port", type=int, default=8000, help="preferred port of the web site")
    parser.add_argument("--exit", action="store_true", help="stop when the job ends")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        lock = FolderLock(options.folder)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    stack = Stack(options.folder, web_port=options.port)
    began = time.monotonic()
    try:
        _log("starting brokers, database and server ...")
        stack.start()
        lock.note_url(stack.url)
        _log(f"the site is ready after {time.monotonic() - began:.0f} s: {stack.url}")
        site = _log_in(stack)
        _start_devices(stack, site)
        job = next((row for row in site.all_rows("/jobs/") if row["phase"] not in OVER), None)
        if job is None:
            job = site.launch(SPEC)
        else:
            _log(f"continuing the job {job['name']!r}, which is {job['phase']}")
        _log(f"watch the job live: {stack.url}/jobs/{job['id']}/  (Ctrl-C stops everything)")
        job = _follow(stack, site, job)
        return _finish(stack, site, job, options.exit)
    except KeyboardInterrupt:
        _log("stopping; `make demo` continues from here")
        return 130
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        stack.stop()
        lock.release()


def _log(text: str) -> None:
    print(text, flush=True)


def _log_in(stack: Stack) -> Site:
    """A client with an API token: created at the first start, reused at later ones."""
    path = stack.folder / "api-token"
    if path.exists():
        site = Site(stack.url, path.read_text().strip())
        if site.is_valid():
            _log(f"log in as {ADMIN} with the password printed at the first start")
            return site
    password = secrets.token_urlsafe(12)
    stack.manage("ensure_admin", "--username", ADMIN, EDGEWISE_ADMIN_PASSWORD=password)
    _log(f"log in as {ADMIN} with the password {password} (it won't be shown again)")
    token = make_token(stack.url, ADMIN, password, "make demo")
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(token)
    return Site(stack.url, token)


def _start_devices(stack: Stack, site: Site) -> None:
    """Enrol the devices that are new, start all, and wait until they are online."""
    enrolled = {row["name"] for row in site.all_rows("/devices/")}
    for device in FLEET:
        state = stack.folder / "devices" / device.name
        data = write_dialogues(device, state / "data")
        if device.name not in enrolled:
            token = site.enrolment_token(device.name)
            stack.enrol_agent(
                device.name, token, {device.domain: f"{data}:dialogue,summary,{device.domain}"}
            )
            _log(f"{device.name} enrolled with dialogues of the domain {device.domain}")
        stack.start_agent(device.name)
    deadline = time.monotonic() + ONLINE_WITHIN_S
    names = {device.name for device in FLEET}
    while time.monotonic() < deadline:
        rows = site.all_rows("/devices/")
        if names <= {row["name"] for row in rows if row["presence"] in ("online", "busy")}:
            _log(f"{len(names)} devices are online")
            return
        for name in names:
            stack.processes.check(f"agent-{name}")
        time.sleep(0.5)
    raise StartError(
        f"not all devices came online within {ONLINE_WITHIN_S:.0f} s; see their logs in "
        f"{stack.processes.log_dir}"
    )


def _follow(stack: Stack, site: Site, job: dict[str, Any]) -> dict[str, Any]:
    """Print the job's events as they come, until the job is over."""
    seq = 0
    while True:
        over = job["phase"] in OVER
        for event in site.events_after(job["id"], seq):
            seq = event["seq"]
            _log(f"  {event['at'][11:19]}  {event['text']}")
        if over:
            return job
        for part in ("web", "coordinator", "aggregate"):
            stack.processes.check(part)
        stack.processes.rotate_logs()
        time.sleep(1.0)
        job = site.job(job["id"])


def _finish(stack: Stack, site: Site, job: dict[str, Any], leave: bool) -> int:
    """Download the adapter, wait for Ctrl-C unless ``leave``, print the summary."""
    target = ""
    if job["phase"] == "completed":
        path = stack.folder / "models" / f"{job['id']}-adapter.zip"
        target = str(site.download(f"/jobs/{job['id']}/download/adapter/", path))
    if not leave:
        _log(f"the job is {job['phase']}; the site runs until Ctrl-C: {stack.url}")
        if target:
            _log(f"the tuned adapter: {target}")
        while True:
            stack.processes.rotate_logs()
            time.sleep(ROTATE_INTERVAL_S)
    print(json.dumps(summary(site, job, target)), flush=True)
    return 0 if job["phase"] == "completed" else 1


if __name__ == "__main__":
    sys.exit(main())
