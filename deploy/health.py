"""Health checks of the containers: ``python deploy/health.py web | beat FOLDER | device``.

Exits 0 where the part does its work. The workers are asked by ``celery inspect ping`` instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# Beat writes its schedule at least every three minutes.
BEAT_SILENT_S = 420.0


def web(port: str = "8000") -> bool:
    """Whether the process is ready: it answers, and database, broker and storage work."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=8) as answer:
        return int(answer.status) == 200


def beat(folder: str) -> bool:
    """Whether the schedule in ``folder`` was written lately."""
    written = [path.stat().st_mtime for path in Path(folder).iterdir()]
    return time.time() - max(written, default=0.0) < BEAT_SILENT_S


def device() -> bool:
    """Whether the agent runs and is in touch with its server."""
    command = [sys.executable, "-m", "workers.agent", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return bool(json.loads(done.stdout)["online"])


CHECKS = {"web": web, "beat": beat, "device": device}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in CHECKS:
        print(f"name one of {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    try:
        healthy = CHECKS[arguments[0]](*arguments[1:])
    except urllib.error.HTTPError as error:
        print(error.read().decode(), file=sys.stderr)
        return 1
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
