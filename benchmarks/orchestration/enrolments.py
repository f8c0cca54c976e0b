"""Enrol many devices at once: ``python -m benchmarks.orchestration.enrolments FILE COUNT PREFIX``.

Runs with the environment of the site's processes. Their credentials go to FILE, one per line.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import django

from benchmarks.orchestration.virtual import DATASETS, VERSION
from workers.agent.http.server_clock import Clock
from workers.agent.state.credentials import from_enrolment

VALID_FOR = timedelta(hours=1)


def main(path: Path, count: int, prefix: str, url: str) -> None:
    django.setup()
    from django.db import transaction

    from webapp.accounts.models import User
    from webapp.devices.signing import public_key
    from webapp.jobs.lifecycle import enrolment

    admin, now = User.objects.filter(role="admin").first(), Clock().iso()
    assert admin is not None
    with path.open("w") as out, transaction.atomic():
        for number in range(count):
            name = f"{prefix}-{number:05d}"
            _, token = enrolment.create_enrolment(admin, name, "trainer", VALID_FOR)
            admission = enrolment.enrol(token, name, VERSION, {}, DATASETS)
            answer = {
                "device": {"id": admission.device.pk, "name": name, "role": "trainer"},
                "api_token": admission.api_token,
                "signing_public_key": public_key(),
            }
            out.write(json.dumps(asdict(from_enrolment(url, answer, now))) + "\n")


if __name__ == "__main__":
    from django.conf import settings

    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], settings.PUBLIC_URL)
