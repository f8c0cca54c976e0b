"""Start everything, enrol three devices, run a job, show how it goes."""

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
from workers.stack.processes import StartError
from workers.stack.site import OVER, Site, make_token
from workers.stack.stack import Stack

ADMIN = "admin"
ONLINE_WITHIN_S = 120.0


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    stack = Stack(options.folder, web_port=options.port)
    began = time.monotonic()
    try:
        _say("starting brokers, database and server ...")
        stack.start()
        _say(f"the site is up after {time.monotonic() - began:.0f} s: {stack.url}")
        site = _site(stack)
        _start_devices(stack, site)
        job = _job(site)
        _say(f"watch the job live: {stack.url}/jobs/{job['id']}/  (Ctrl-C stops everything)")
        job = _follow(stack, site, job)
        return _finish(stack, site, job, options.exit)
    except KeyboardInterrupt:
        _say("stopping; `make demo` goes on from here")
        return 130
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        stack.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where all data goes")
    parser.add_argument("--port", type=int, default=8000, help="tried first for the web site")
    parser.add_argument("--exit", action="store_true", help="end when the job ends")
    return parser.parse_args()


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)


def _site(stack: Stack) -> Site:
    """An API token for this script: made at the first start, kept for the next ones."""
    path = stack.folder / "api-token"
    if path.exists():
        site = Site(stack.url, path.read_text().strip())
        if site.is_valid():
            _say(f"log in as {ADMIN} with the password printed at the first start")
            return site
    password = _make_admin(stack)
    token = make_token(stack.url, ADMIN, password, "make demo")
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(token)
    return Site(stack.url, token)


def _make_admin(stack: Stack) -> str:
    password = secrets.token_urlsafe(12)
    stack.manage(
        *("ensure_admin", "--username", ADMIN),
        EDGEWISE_ADMIN_PASSWORD=password,
    )
    _say(f"log in as {ADMIN} with the password {password} (shown this once)")
    return password


def _start_devices(stack: Stack, site: Site) -> None:
    enrolled = {row["name"] for row in site.everything("/devices/")}
    for device in FLEET:
        state = stack.folder / "devices" / device.name
        data = write_dialogues(device, state / "data")
        if device.name not in enrolled:
            token = site.enrolment_token(device.name)
            stack.enrol_agent(
                device.name, token, {device.domain: f"{data}:dialogue,summary,{device.domain}"}
            )
            _say(f"{device.name} enrolled; it holds dialogues of the domain {device.domain}")
        stack.start_agent(device.name)
    _wait_online(stack, site)


def _wait_online(stack: Stack, site: Site) -> None:
    deadline = time.monotonic() + ONLINE_WITHIN_S
    wanted = {device.name for device in FLEET}
    while time.monotonic() < deadline:
        rows = site.everything("/devices/")
        if wanted <= {row["name"] for row in rows if row["presence"] in ("online", "busy")}:
            _say(f"{len(wanted)} devices are online")
            return
        for device in FLEET:
            stack.processes.check(f"agent-{device.name}")
        time.sleep(0.5)
    raise StartError(f"not all devices came online within {ONLINE_WITHIN_S:.0f} s")


def _job(site: Site) -> dict[str, Any]:
    """The job that a former start left unfinished, or a new one."""
    for job in site.everything("/jobs/"):
        if job["phase"] not in OVER:
            _say(f"going on with the job {job['name']!r}, which is {job['phase']}")
            return job
    return site.launch(SPEC)


def _follow(stack: Stack, site: Site, job: dict[str, Any]) -> dict[str, Any]:
    """Print the job's log as it grows, until the job is over."""
    seq = 0
    while True:
        over = job["phase"] in OVER
        for event in site.events_after(job["id"], seq):
            seq = event["seq"]
            _say(f"  {event['at'][11:19]}  {event['text']}")
        if over:
            return job
        for part in ("web", "coordinator", "aggregate"):
            stack.processes.check(part)
        time.sleep(1.0)
        job = site.job(job["id"])


def _finish(stack: Stack, site: Site, job: dict[str, Any], leave: bool) -> int:
    target = ""
    if job["phase"] == "completed":
        path = stack.folder / "models" / f"{job['id']}-adapter.zip"
        target = str(site.download(f"/jobs/{job['id']}/download/adapter/", path))
    if not leave:
        _say(f"the job is {job['phase']}; the site stays up until Ctrl-C: {stack.url}")
        if target:
            _say(f"the tuned adapter: {target}")
        signal.pause()
    print(json.dumps(summary(site, job, target)), flush=True)
    return 0 if job["phase"] == "completed" else 1


if __name__ == "__main__":
    sys.exit(main())
