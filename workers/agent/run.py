"""Puts the agent together and runs it: Celery's worker in the main thread, sender and warden beside
it, the training in the worker's one child."""

from __future__ import annotations

import logging
import math
import shutil
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from celery.signals import worker_process_init, worker_ready
from celery.worker import state as worker_state

from fedcore.errors import ServerRefused, ServerUnavailable, Stopped
from fedcore.hardware.machines import recognise
from workers.agent.agent_errors import EnvelopeRefused, Revoked
from workers.agent.agent_settings import VERSION, AgentSettings, prepare_state_dir
from workers.agent.assignment import error_feedback, private_folders
from workers.agent.assignment.assignment import Trainer
from workers.agent.assignment.process import ProcessContext, TrainingProcess
from workers.agent.control.celery_app import build_app, build_worker
from workers.agent.control.gatekeeper import Gatekeeper
from workers.agent.control.supervisor import StopRequest, Warden, end_children
from workers.agent.http import link_emulation as links
from workers.agent.http.retry import keep_trying
from workers.agent.http.server_api import Address, ServerApi, check_url
from workers.agent.http.server_clock import Clock
from workers.agent.http.throttle import LinkThrottle
from workers.agent.profile import local_datasets, probe
from workers.agent.state import credential as credentials
from workers.agent.state.credential import DeviceCredential
from workers.agent.state.database import StateDatabase
from workers.agent.state.lock import RunLock
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.sender import CLOCK_NOTE, Sender, take_cancels

EXIT_REVOKED = 3
EXIT_RESTART = 75
RESTART_S = 2.0
STOPPED = "the agent was stopped"

# From what is known of this device to its trainer; called in the training process.
MakeTrainer = Callable[[AgentSettings, dict[str, Any]], Trainer]

log = logging.getLogger(__name__)


def real_trainer(settings: AgentSettings, profile: dict[str, Any]) -> Trainer:
    """Imports torch: for the training process alone."""
    from workers.agent.assignment.trainer import FedcoreTrainer

    held = {item.name: item for item in local_datasets.load(settings.state_dir)}
    kept, own = (settings.state_dir / module.FOLDER for module in (error_feedback, private_folders))
    return FedcoreTrainer(settings.cache, settings.threads, held, kept, own, profile)


@dataclass(frozen=True)
class Agent:
    """The parts of one start."""

    settings: AgentSettings
    credential: DeviceCredential
    boot_id: str
    server: ServerApi
    outbox: Outbox
    board: SharedState
    stop: StopRequest
    pace: LinkThrottle | None = None

    @property
    def address(self) -> Address:
        known = self.credential
        return Address(known.server, known.api_token, self.settings.ca_file, self.pace)


def run(
    settings: AgentSettings,
    make_trainer: MakeTrainer = real_trainer,
    server_url: str = "",
    link: str = "",
) -> int:
    """Run until stopped; returns the exit code. Raises AgentError where it cannot start.

    ``server_url`` is where the server has moved to, empty: where it was; ``link`` one to emulate.
    """
    prepare_state_dir(settings)
    credential = credentials.require(settings.state_dir)
    if server_url:
        credential = credentials.moved(credential, server=check_url(server_url))
    pace = links.pace_of(links.settle(settings, link))
    lock = RunLock(settings.state_dir)
    lock.acquire()
    try:
        stop = StopRequest()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.request(0, STOPPED))
        return _run(_assemble(settings, credential, stop, pace), lock, make_trainer)
    finally:
        lock.release()


def _assemble(
    settings: AgentSettings,
    credential: DeviceCredential,
    stop: StopRequest,
    pace: LinkThrottle | None,
) -> Agent:
    store = StateDatabase(settings.database)
    board = SharedState(store)
    board.wipe()
    shutil.rmtree(settings.state_dir / "updates", ignore_errors=True)
    address = Address(credential.server, credential.api_token, settings.ca_file, pace)
    server, boot_id = ServerApi(address, Clock()), uuid.uuid4().hex
    return Agent(settings, credential, boot_id, server, Outbox(store), board, stop, pace)


def _run(agent: Agent, lock: RunLock, make_trainer: MakeTrainer) -> int:
    stop = agent.stop
    sender = Sender(
        agent.server,
        agent.outbox,
        agent.board,
        agent.boot_id,
        lambda reason: stop.request(EXIT_REVOKED, reason),
    )
    Warden(agent.board, stop, sender.hurry, sender.tell_of_loss, _stop_worker).start()
    try:
        profile = _profile(agent)
        answer = _hello(agent, profile)
        sender.pace(float(answer.get("interval_s") or 1.0))
        sender.start()
        agent = replace(agent, credential=_settled(agent, answer))
        code = _work(agent, lock, profile, make_trainer)
    except Revoked as error:
        stop.request(EXIT_REVOKED, str(error))
        code = 0
    except Stopped:
        code = 0
    sender.stop()
    return _ended(stop, code)


def _profile(agent: Agent) -> dict[str, Any]:
    """What was measured once, and what may be otherwise at each start."""
    found = probe.profile(agent.settings)
    link = agent.pace.name if agent.pace else ""
    if link:
        log.warning("transfers are as slow as those of a link %r: see --link", link)
    known = recognise(found)  # the table may have grown since the probe
    now = {"board": known.id if known else "", "link": link}
    return {**found, **now, "power_sensor": probe.power_sensor(found)}


def _hello(agent: Agent, profile: dict[str, Any]) -> dict[str, Any]:
    """Say that the agent has started; returns the server's answer."""

    def check() -> None:
        if agent.stop.wanted:
            raise Stopped(agent.stop.reason)

    settings = agent.settings
    body = {
        "boot_id": agent.boot_id,
        "agent_version": VERSION,
        "profile": profile,
        "datasets": local_datasets.describe_again(settings.state_dir, settings.cache),
    }
    log.info("%s calls %s", agent.credential.name, agent.credential.server)

    def call() -> dict[str, Any]:
        try:
            return agent.server.hello(body)
        except Revoked:
            raise
        except ServerRefused as refusal:  # of a proxy, say; an agent outlasts it
            raise ServerUnavailable(str(refusal)) from refusal

    answer = keep_trying(call, math.inf, check, "saying hello")
    agent.outbox.continue_from(int(answer.get("next_sample_seq") or 1))
    agent.board.note("last_contact", agent.server.clock.iso())
    agent.board.note(CLOCK_NOTE, repr(agent.server.clock.offset_s))
    take_cancels(answer, agent.board)
    return answer


def _settled(agent: Agent, answer: dict[str, Any]) -> DeviceCredential:
    """The credential with the addresses that hold now, stored if they are new."""
    known = credentials.load(agent.settings.state_dir)
    found = credentials.moved(agent.credential, broker=str(answer.get("broker_url") or ""))
    if found != known:
        credentials.save(agent.settings.state_dir, found)
    return found


def _work(agent: Agent, lock: RunLock, profile: dict[str, Any], make_trainer: MakeTrainer) -> int:
    """Take work until told to stop; returns the Celery worker's exit code."""
    gatekeeper = Gatekeeper(
        agent.credential.device_id,
        agent.credential.public_key,
        agent.board.see_nonce,
        agent.server.clock.now,
    )
    kit = ProcessContext(
        agent.address,
        agent.boot_id,
        agent.outbox,
        agent.board,
        gatekeeper,
        agent.settings.state_dir,
        profile,
        lambda: make_trainer(agent.settings, profile),
        lambda: _shared_clock(agent),
    )
    children: list[TrainingProcess] = []

    def on_fork(**_: Any) -> None:
        lock.forget()
        children[:] = [TrainingProcess(kit)]

    def on_ready(**_: Any) -> None:
        log.info("%s is ready for work (%s)", agent.credential.name, agent.settings.state_dir)

    worker_process_init.connect(on_fork, weak=False)
    worker_ready.connect(on_ready, weak=False)
    app = build_app(
        agent.credential,
        agent.settings.ca_file,
        lambda envelope: children[0].handle(envelope),
        lambda envelope: _cancel(gatekeeper, agent.board, envelope),
    )
    worker = build_worker(app, agent.credential)
    worker.start()
    return int(worker.exitcode or 0)


def _shared_clock(agent: Agent) -> float:
    """In the training process: what its parent has learnt of the server's clock since the fork."""
    agent.server.clock.offset_s = float(agent.board.noted(CLOCK_NOTE) or 0.0)
    return agent.server.clock.offset_s


def _cancel(gatekeeper: Gatekeeper, board: SharedState, envelope: Any) -> str:
    try:
        message = gatekeeper.admit(envelope, "cancel")
    except EnvelopeRefused as refusal:
        log.warning("a cancellation was refused: %s", refusal)
        return "refused"
    if board.cancel(message.assignment, message.reason or "cancelled by the server"):
        log.info("assignment %s is cancelled: %s", message.assignment[:8], message.reason)
    return "cancelled"


def _stop_worker() -> None:
    worker_state.should_stop = 0


def _ended(stop: StopRequest, worker_code: int) -> int:
    if not stop.wanted:
        log.error("the Celery worker ended by itself (code %d); starting again", worker_code)
        end_children()
        time.sleep(RESTART_S)
        return EXIT_RESTART
    if stop.exit_code == EXIT_REVOKED:
        log.error(
            "this device's credential was revoked (%s). The agent ends; to take part again, "
            "run unenroll --force and enrol with a new token",
            stop.reason,
        )
    return stop.exit_code
