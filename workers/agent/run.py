"""Assembles and runs the agent.

Celery's worker runs in the main thread, with sender and supervisor threads beside it; training
runs in the worker's one child process.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from celery.signals import worker_process_init, worker_ready

from fedcore.errors import Stopped
from workers.agent.agent_errors import EnvelopeRefused, Revoked
from workers.agent.agent_settings import AgentSettings, prepare_state_dir
from workers.agent.assignment import error_feedback, private_folders
from workers.agent.assignment.contract import Trainer
from workers.agent.assignment.process import ProcessContext, TrainingProcess
from workers.agent.control.celery_app import build_app, build_worker, stop_worker
from workers.agent.control.gatekeeper import Gatekeeper
from workers.agent.control.supervisor import StopRequest, Supervisor, kill_children
from workers.agent.http.link_emulation import choose_link, throttle_for
from workers.agent.http.server_api import check_url
from workers.agent.profile import local_datasets
from workers.agent.startup import Agent, assemble, current_profile, say_hello
from workers.agent.state import credentials
from workers.agent.state.lock import RunLock
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.sender import Sender

EXIT_REVOKED = 3
EXIT_RESTART = 75
RESTART_S = 2.0
STOPPED = "the agent was stopped"

# Builds the trainer from settings and profile; called in the training process.
MakeTrainer = Callable[[AgentSettings, dict[str, Any]], Trainer]

log = logging.getLogger(__name__)


def real_trainer(settings: AgentSettings, profile: dict[str, Any]) -> Trainer:
    """Imports torch: for the training process alone."""
    from workers.agent.assignment.trainer import FedcoreTrainer

    state_dir = settings.state_dir
    return FedcoreTrainer(
        settings.cache,
        settings.threads,
        {item.name: item for item in local_datasets.load(state_dir)},
        state_dir / error_feedback.FOLDER,
        state_dir / private_folders.FOLDER,
        profile,
    )


def run(
    settings: AgentSettings,
    make_trainer: MakeTrainer = real_trainer,
    server_url: str = "",
    link: str = "",
) -> int:
    """Run until stopped; returns the exit code. Raises AgentError where it cannot start.

    ``server_url`` is the server's new address, '' if unchanged; ``link`` is a link to emulate.
    """
    prepare_state_dir(settings)
    credential = credentials.require(settings.state_dir)
    if server_url:
        credential = credentials.with_addresses(credential, server=check_url(server_url))
    throttle = throttle_for(choose_link(settings, link))
    lock = RunLock(settings.state_dir)
    lock.acquire()
    try:
        stop = StopRequest()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.request(0, STOPPED))
        return _run(assemble(settings, credential, stop, throttle), lock, make_trainer)
    finally:
        lock.release()


def _run(agent: Agent, lock: RunLock, make_trainer: MakeTrainer) -> int:
    stop = agent.stop
    sender = Sender(
        agent.server,
        agent.outbox,
        agent.shared_state,
        agent.boot_id,
        lambda reason: stop.request(EXIT_REVOKED, reason),
    )
    Supervisor(agent.shared_state, stop, sender.hurry, sender.report_loss, stop_worker).start()
    try:
        profile = current_profile(agent)
        answer = say_hello(agent, profile)
        sender.set_interval(float(answer.get("interval_s") or 1.0))
        sender.start()
        broker = str(answer.get("broker_url") or "")
        credential = credentials.with_addresses(agent.credential, broker=broker)
        if credential != credentials.load(agent.settings.state_dir):
            credentials.save(agent.settings.state_dir, credential)
        code = _take_work(replace(agent, credential=credential), lock, profile, make_trainer)
    except Revoked as error:
        stop.request(EXIT_REVOKED, str(error))
        code = 0
    except Stopped:
        code = 0
    sender.stop()
    if not stop.requested:
        log.error("the Celery worker ended by itself (code %d); restarting", code)
        kill_children()
        time.sleep(RESTART_S)
        return EXIT_RESTART
    if stop.exit_code == EXIT_REVOKED:
        log.error(
            "this device's credential was revoked (%s). The agent ends; to take part again, "
            "run unenroll --force and enrol with a new token",
            stop.reason,
        )
    return stop.exit_code


def _take_work(
    agent: Agent, lock: RunLock, profile: dict[str, Any], make_trainer: MakeTrainer
) -> int:
    """Run Celery's worker until it is stopped; returns its exit code."""
    gatekeeper = Gatekeeper(
        agent.credential.device_id,
        agent.credential.public_key,
        agent.shared_state.see_nonce,
        agent.server.clock.now,
    )
    context = ProcessContext(
        agent.address,
        agent.boot_id,
        agent.outbox,
        agent.shared_state,
        gatekeeper,
        agent.settings.state_dir,
        profile,
        lambda: make_trainer(agent.settings, profile),
        agent.server_clock_offset_s,
    )
    children: list[TrainingProcess] = []

    def on_fork(**_: Any) -> None:
        lock.forget()
        children[:] = [TrainingProcess(context)]

    def on_ready(**_: Any) -> None:
        log.info("%s is ready for work (%s)", agent.credential.name, agent.settings.state_dir)

    worker_process_init.connect(on_fork, weak=False)
    worker_ready.connect(on_ready, weak=False)
    app = build_app(
        agent.credential,
        agent.settings.ca_file,
        lambda envelope: children[0].handle(envelope),
        lambda envelope: _cancel(gatekeeper, agent.shared_state, envelope),
    )
    worker = build_worker(app, agent.credential)
    worker.start()
    return int(worker.exitcode or 0)


def _cancel(gatekeeper: Gatekeeper, shared_state: SharedState, envelope: Any) -> str:
    try:
        message = gatekeeper.admit(envelope, "cancel")
    except EnvelopeRefused as refusal:
        log.warning("refused a cancellation: %s", refusal)
        return "refused"
    if shared_state.cancel(message.assignment, message.reason or "cancelled by the server"):
        log.info("assignment %s is cancelled: %s", message.assignment[:8], message.reason)
    return "cancelled"
