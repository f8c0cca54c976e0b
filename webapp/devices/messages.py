"""Celery's message for a device's queue, as kombu's Redis transport writes it.

kombu opens a connection for each key prefix, so a round of a hundred devices would open a hundred.
Written here, all offers of a round leave in one exchange. ``tests/stack/test_broker_acl.py`` has a
real Celery worker take them.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from celery import Celery

_app = Celery("edgewise-devices", set_as_current=False)
_app.conf.update(task_serializer="json", accept_content=["json"], task_ignore_result=True)


def task_message(task: str, args: list[Any], queue: str) -> str:
    """What LPUSH puts into ``queue``; protocol 2 of Celery, body as JSON in base64."""
    task_id = str(uuid.uuid4())
    made = _app.amqp.as_task_v2(task_id, task, args=args, kwargs={})
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(made.body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": made.headers,
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )
