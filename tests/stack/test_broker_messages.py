"""Messages to devices through Celery, as they really travel, with an attacker among the devices."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.connection import Connection
from kombu.pidbox import Mailbox

from tests.stack.broker_site import ATTACKER, VICTIM, Site, server, site
from webapp.common.task_queue import BROKER_ERRORS
from webapp.devices.broker_users import key_prefix
from webapp.devices.device_messages import (
    CANCEL_COMMAND,
    WORK_QUEUE,
    WORK_TASK,
    DeviceMessage,
    device_connection,
    publish,
)
from webapp.devices.signing import public_key, sign
from workers.agent.state.credentials import DeviceCredential

pytestmark = pytest.mark.stack
__all__ = ["server", "site"]


class Worker:
    """A device's Celery worker, a process of its own."""

    def __init__(self, device_id: int, url: str, folder: Path) -> None:
        self._out = folder / f"{device_id}.jsonl"
        credential = folder / f"{device_id}.json"
        values = DeviceCredential(
            server="http://127.0.0.1:1",
            device_id=device_id,
            name=f"device-{device_id}",
            role="trainer",
            queue=WORK_QUEUE,
            key_prefix=key_prefix(device_id),
            enrolled_at="",
            api_token="",
            broker_url=url,
            signing_public_key=public_key(),
        )
        credential.write_text(json.dumps(values.__dict__))
        command = [sys.executable, "-m", "tests.stack.device_worker"]
        self._log = (folder / f"{device_id}.log").open("wb")
        self._process = subprocess.Popen(
            [*command, str(credential), str(self._out)], stdout=self._log, stderr=self._log
        )

    def seen(self) -> list[dict[str, Any]]:
        lines = self._out.read_text().splitlines() if self._out.exists() else []
        return [json.loads(line) for line in lines]

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def until(condition: Callable[[], Any], worker: Worker, limit_s: float = 90.0) -> Any:
    deadline = time.monotonic() + limit_s
    while not (result := condition()):
        assert time.monotonic() < deadline, worker.log()
        time.sleep(0.05)
    return result


@pytest.fixture
def workers(site: Site, tmp_path: Path) -> Iterator[dict[int, Worker]]:
    for device in (ATTACKER, VICTIM):
        site.admin.delete(*site.admin.keys(f"{key_prefix(device)}*"))
    started = {
        ATTACKER: Worker(ATTACKER, site.attacker_url, tmp_path),
        VICTIM: Worker(VICTIM, site.victim_url, tmp_path),
    }
    yield started
    for worker in started.values():
        worker.stop()


def test_messages_reach_only_their_device(site: Site, workers: dict[int, Worker]) -> None:
    victim = workers[VICTIM]
    offered = sign("work", VICTIM, "an-assignment")
    publish([DeviceMessage("work", VICTIM, offered)])
    (seen,) = until(victim.seen, victim)
    assert (seen["kind"], seen["envelope"]) == ("work", offered)

    # The control command is answered, by this device alone.
    stop = sign("cancel", VICTIM, "an-assignment", reason="the job was paused")
    with device_connection(VICTIM) as connection:
        mailbox = Mailbox("celery", type="fanout", connection=connection, serializer="json")
        replies = until(
            lambda: mailbox.multi_call(CANCEL_COMMAND, {"envelope": stop}, timeout=2),
            victim,
        )
    assert replies == [{f"device-{VICTIM}@edgewise": {"ok": "noted"}}]
    cancels = [item for item in victim.seen() if item["kind"] == "cancel"]
    assert cancels[-1]["envelope"] == stop
    assert cancels[-1]["pid"] != seen["pid"], "heard while the training process may be busy"

    # As the server sends it: nobody waits for an answer.
    publish([DeviceMessage("cancel", VICTIM, stop)])
    until(lambda: len(victim.seen()) > 1 + len(cancels), victim)

    publish([DeviceMessage("work", ATTACKER, sign("work", ATTACKER, "another"))])
    until(workers[ATTACKER].seen, workers[ATTACKER])
    assert len(workers[ATTACKER].seen()) == 1

    _attack_by_celery(site)
    time.sleep(0.5)
    kinds = [item["kind"] for item in victim.seen()]
    assert kinds.count("work") == 1
    assert kinds.count("cancel") == len(cancels) + 1


def _attack_by_celery(site: Site) -> None:
    """Celery with the attacker's password and the victim's prefix: refused at every step."""
    app = Celery("attack", set_as_current=False)
    for prefix in (key_prefix(VICTIM), "dev.", ""):
        options = {"global_keyprefix": prefix, "max_retries": 0}
        with Connection(site.attacker_url, transport_options=options) as connection:
            forged = sign("work", VICTIM, "forged")
            with pytest.raises(BROKER_ERRORS):
                app.send_task(
                    WORK_TASK,
                    args=[forged],
                    queue="work",
                    connection=connection,
                    retry=False,
                )
            with pytest.raises(BROKER_ERRORS):
                mailbox = Mailbox("celery", type="fanout", connection=connection, serializer="json")
                mailbox.abcast(CANCEL_COMMAND, {"envelope": forged})
