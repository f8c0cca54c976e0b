"""The device's Celery worker: one queue, JSON only, its own key prefix, and two commands."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from celery.apps.worker import Worker
from celery.platforms import SecurityWarning
from celery.worker import state as worker_state
from celery.worker.control import Panel, control_command

from workers.agent.state.credentials import DeviceCredential

WORK = "edgewise.work"
CANCEL = "edgewise_cancel"
# A message unacknowledged for this long is redelivered; its nonce lets only one copy run.
# Messages are acknowledged before the work begins: leases live in the server's database.
VISIBILITY_S = 7200
# The worker's event loop wakes at least this often, so that it stops soon when asked to.
TICK_S = 0.25


def build_app(
    credential: DeviceCredential,
    ca_file: Path | None,
    on_work: Callable[[Any], None],
    on_cancel: Callable[[Any], str],
) -> Celery:
    """``on_work`` runs in the training process, ``on_cancel`` in the worker's main process."""
    # Without fixups, or Celery would load a Django project that the environment names.
    app = Celery("edgewise-agent", broker=credential.broker_url, fixups=[])
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=credential.queue,
        task_acks_late=False,
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_pool_start_method="fork",
        worker_proc_alive_timeout=60.0,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_soft_shutdown_on_idle=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=10,
        broker_transport_options={
            "global_keyprefix": credential.key_prefix,
            "visibility_timeout": VISIBILITY_S,
            "socket_connect_timeout": 10,
            "socket_keepalive": True,
            "socket_keepalive_options": keepalive(),
            "health_check_interval": 25,
        },
    )
    if credential.broker_url.startswith("rediss:"):
        app.conf.broker_use_ssl = {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            **({"ssl_ca_certs": str(ca_file)} if ca_file else {}),
        }
    _register_commands(app, on_work, on_cancel)
    return app


def keepalive() -> dict[int, int]:
    """Socket options that detect a silently cut connection to the broker within about a minute."""
    options = {
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 10,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 60_000,  # milliseconds
    }
    return {
        getattr(socket, name): value for name, value in options.items() if hasattr(socket, name)
    }


def _register_commands(
    app: Celery, on_work: Callable[[Any], None], on_cancel: Callable[[Any], str]
) -> None:
    """The work task, and the signed cancellation as the only remote command beside ``ping``."""

    @app.task(name=WORK, ignore_result=True)
    def work(envelope: Any) -> None:
        on_work(envelope)

    @control_command(name=CANCEL, args=[("envelope", dict)])
    def cancel(state: Any, envelope: Any = None, **_: Any) -> dict[str, str]:
        """Stop an assignment."""
        del state
        return {"ok": on_cancel(envelope)}

    # Celery's own commands (shutdown, revoke, rate_limit ...) are not signed.
    for name in set(Panel.data) - {CANCEL, "ping"}:
        Panel.data.pop(name)


class AgentWorker(Worker):  # type: ignore[misc]
    """Celery's worker without its signal handlers: ``workers.agent.run`` handles stopping."""

    def install_platform_tweaks(self, worker: Any) -> None:
        del worker


def build_worker(app: Celery, credential: DeviceCredential) -> AgentWorker:
    # Celery warns about pickle when run as root; pickle is not accepted here.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = AgentWorker(
        app=app,
        hostname=f"device-{credential.device_id}@edgewise",
        queues=[credential.queue],
        pool="prefork",
        concurrency=1,
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    if worker.hub is not None:
        worker.hub.call_repeatedly(TICK_S, lambda: None)
    return worker


def stop_worker() -> None:
    """Make the running worker leave its event loop."""
    worker_state.should_stop = 0
