"""The site's Celery queues, by which web processes reach coordinator and aggregation workers.

A message is only a trigger; the rows say what to do. The reconcile pass replaces lost messages, so
a failed send is logged and returns False.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Protocol

from celery import Celery
from django.conf import settings
from django.db import transaction
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

ADVANCE = "edgewise.advance"
RECONCILE = "edgewise.reconcile"
COLLECT = "edgewise.collect"
INITIALISE = "edgewise.initialise"
AGGREGATE = "edgewise.aggregate"
FOLD_SHARD = "edgewise.fold_shard"
EXPORT = "edgewise.export"

COORDINATOR_QUEUE = "coordinator"
AGGREGATE_QUEUE = "aggregate"
QUEUE_OF = {
    ADVANCE: COORDINATOR_QUEUE,
    RECONCILE: COORDINATOR_QUEUE,
    COLLECT: COORDINATOR_QUEUE,
    INITIALISE: AGGREGATE_QUEUE,
    AGGREGATE: AGGREGATE_QUEUE,
    FOLD_SHARD: AGGREGATE_QUEUE,
    EXPORT: AGGREGATE_QUEUE,
}

BROKER_ERRORS = (KombuError, RedisError, OSError)

app = Celery("edgewise", broker=settings.REDIS_URL, set_as_current=False)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    # Tasks are acknowledged early, so no visibility timeout delivers one twice.
    broker_transport_options={
        "global_keyprefix": "edgewise.",
        "socket_connect_timeout": 3,
        "socket_timeout": 30,
        "health_check_interval": 25,
    },
    # A reconcile pass expires when the next one is due.
    beat_schedule={
        "reconcile": {
            "task": RECONCILE,
            "schedule": settings.RECONCILE_INTERVAL_S,
            "options": {
                "queue": COORDINATOR_QUEUE,
                "expires": max(settings.RECONCILE_INTERVAL_S, 1.0),
            },
        },
        "collect": {
            "task": COLLECT,
            "schedule": settings.COLLECT_INTERVAL_S,
            "options": {"queue": COORDINATOR_QUEUE, "expires": settings.COLLECT_INTERVAL_S},
        },
    },
)


class Publisher(Protocol):
    """Sends a message to the workers."""

    def __call__(self, name: str, args: tuple[Any, ...]) -> None: ...


def publish(name: str, args: tuple[Any, ...]) -> None:
    app.send_task(
        name,
        args=args,
        queue=QUEUE_OF[name],
        retry=True,
        retry_policy={"max_retries": 1, "interval_start": 0.1, "interval_max": 0.1},
    )


# Tests replace it by an outbox.
publisher: Publisher = publish


def send(name: str, *args: Any) -> bool:
    """Send a message now. False if the broker cannot be reached."""
    try:
        publisher(name, args)
    except BROKER_ERRORS as error:
        log.warning("broker is down, %s%s waits for the reconcile pass: %s", name, args, error)
        return False
    return True


def send_after_commit(name: str, *args: Any) -> None:
    """Send a message after the current transaction commits; at once outside of one."""
    transaction.on_commit(partial(send, name, *args))
