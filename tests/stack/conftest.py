"""A whole site as separate processes: brokers, web, coordinator, aggregation, three agents."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stack.simulation import Simulator
from workers.demo.scenario import FLEET, write_dialogues
from workers.stack.site import Site, make_token
from workers.stack.stack import Stack

LIMIT_S = 600  # of a test; what it waits for has shorter limits, and fails with logs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("stack") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT_S))


# One thread, fp32 and deterministic: the same bits as in one process.
EXACT: dict[str, Any] = {
    "name": "acceptance",
    "model": {"name": "nano"},
    "adapter": {"rank": 4, "dropout": 0.1},
    "data": {"max_validation_examples": 6, "max_source_tokens": 192, "max_target_tokens": 48},
    "train": {"local_steps": 12, "batch_size": 4, "learning_rate": 3e-3, "precision": "fp32"},
    "strategy": {"name": "fedadam", "server_learning_rate": 0.01},
    "participation": {"minimum": 3, "deadline_s": 240.0, "lease_s": 20.0},
    "rounds": 2,
    "seed": 11,
    "threads": 1,
    "deterministic": True,
}


@dataclass
class Running:
    """The stack, its API, where each device's dialogues are, and what simulates its jobs."""

    stack: Stack
    site: Site
    data: dict[str, Path]
    simulator: Simulator

    def wait(self, what: str, probe: Callable[[], Any], limit_s: float = 120.0) -> Any:
        """Ask again until ``probe`` returns something; fail with the logs where it never does."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            answer = probe()
            if answer:
                return answer
            time.sleep(0.1)
        processes = self.stack.processes
        logs = "\n".join(f"== {name}\n{processes.log_tail(name)}" for name in processes.running)
        pytest.fail(f"no {what} within {limit_s:.0f} s\n{logs}")

    def assignments(self, job: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
        return list(self.site.all_rows("/assignments/", job=job["id"], **query))

    def rounds(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self.site.all_rows("/rounds/", job=job["id"], ordering="number"))

    def training(self, job: dict[str, Any], device: str) -> Any:
        """The assignment that a device trains on now, if any."""
        rows = self.assignments(job, task="train", phase="training")
        return next((row for row in rows if row["device_name"] == device), None)

    def done(self, job: dict[str, Any]) -> dict[str, Any]:
        ended = self.site.wait_for(job["id"], 300)
        log = [event["text"] for event in self.site.events_after(job["id"], 0)]
        assert ended["phase"] == "completed", "\n".join([ended["reason"], *log])
        return ended


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    stack, simulator = Stack(tmp_path_factory.mktemp("stack"), web_port=0), Simulator()
    try:
        stack.start()
        password = secrets.token_urlsafe(12)
        stack.manage("ensure_admin", EDGEWISE_ADMIN_PASSWORD=password)
        site = Site(stack.url, make_token(stack.url, "admin", password, "tests"))
        data = {}
        for device in FLEET:
            path = write_dialogues(device, stack.folder / "devices" / device.name / "data")
            datasets = {device.domain: f"{path}:dialogue,summary,{device.domain}"}
            stack.enrol_agent(device.name, site.enrolment_token(device.name), datasets)
            stack.start_agent(device.name)
            data[device.name] = path
        running = Running(stack, site, data, simulator)
        running.wait("three devices online", lambda: _online(site) == len(FLEET))
        yield running
    finally:
        simulator.stop()
        stack.stop()


def _online(site: Site) -> int:
    return sum(row["presence"] == "online" for row in site.all_rows("/devices/"))
