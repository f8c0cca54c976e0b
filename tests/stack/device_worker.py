"""``python -m tests.stack.device_worker CREDENTIAL_FILE OUT_FILE``: a device's Celery worker alone.

The agent's Celery application with its credential; it writes each message to a line of the file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from workers.agent.control.celery_app import build_app, build_worker
from workers.agent.state.credentials import DeviceCredential


def main(credential_file: str, out_file: str) -> None:
    credential = DeviceCredential(**json.loads(Path(credential_file).read_text()))

    def note(kind: str, envelope: Any) -> str:
        with Path(out_file).open("a") as out:
            out.write(json.dumps({"kind": kind, "pid": os.getpid(), "envelope": envelope}) + "\n")
        return "noted"

    app = build_app(
        credential,
        None,
        lambda envelope: note("work", envelope) and None,
        lambda envelope: note("cancel", envelope),
    )
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    build_worker(app, credential).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
