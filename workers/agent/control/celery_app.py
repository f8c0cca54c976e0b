"""The Celery application of a device: one queue of offers, and one task that does the work.

The agent's main process starts a worker with Celery's command (``worker_process``). Its one child
trains. Settings come from the environment of the agent, see ``AgentSettings.environment``.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_process_init
from kombu.transport import TRANSPORT_ALIASES

from workers.agent.agent_settings import AgentSettings, read_settings, set_up_logging
from workers.agent.assignment.process import ProcessContext, TrainingProcess
from workers.agent.assignment.trainer_factory import trainer_factory
from workers.agent.control.transport import QUEUE, WORK
from workers.agent.http.link_emulation import SHARED_FILE, choose_link, throttle_for
from workers.agent.line.local_client import LineClient
from workers.agent.state import credentials
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState

SETTINGS = read_settings()
TRANSPORT_ALIASES["edgewise"] = "workers.agent.control.transport:Transport"
# Celery warns about pickle when run as root; pickle is not accepted here.
warnings.simplefilter("ignore", SecurityWarning)

# Without fixups, or Celery would load a Django project that the environment names.
app = Celery("edgewise-agent", broker="edgewise://localhost/", fixups=[])
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    result_backend=None,
    task_ignore_result=True,
    task_default_queue=QUEUE,
    # An offer is finished when its task is; one whose process died before is handed out again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_pool="workers.agent.control.pool:TrainingPool",
    worker_concurrency=1,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_pool_start_method="fork",
    worker_proc_alive_timeout=60.0,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_enable_soft_shutdown_on_idle=False,
    broker_transport_options={"socket": str(SETTINGS.line_socket or "")},
    broker_connection_retry=False,
    broker_connection_retry_on_startup=False,
)

# The training process of a forked child.
_processes: list[TrainingProcess] = []


@app.task(name=WORK, ignore_result=True)
def work(envelope: Any) -> None:
    _processes[0].handle(envelope)


@setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    set_up_logging(SETTINGS.log_level)


@worker_process_init.connect
def _begin_training_process(**_: Any) -> None:
    assert SETTINGS.line_socket is not None
    _processes[:] = [TrainingProcess(process_context(SETTINGS, SETTINGS.line_socket))]


def process_context(settings: AgentSettings, line_socket: Path) -> ProcessContext:
    """What the training process works with. Raises ServerUnavailable without a main process."""
    client = LineClient(line_socket)
    profile = client.start().profile
    database = StateDatabase(settings.database)
    return ProcessContext(
        credentials.require(settings.state_dir),
        settings,
        throttle_for(choose_link(settings), line_socket.with_name(SHARED_FILE)),
        client,
        Outbox(database),
        SharedState(database),
        profile,
        partial(trainer_factory(settings), settings, profile),
    )
