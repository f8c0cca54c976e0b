"""The tests of two-at-once again, where rows really are locked one by one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.compose import ROOT

pytestmark = pytest.mark.stack

HERE = "postgresql://postgres@127.0.0.1:5432/postgres"
AGAIN = (
    "tests/jobs/test_races.py",
    "tests/device_api/test_job.py::test_a_job_with_two_devices",
    "tests/device_api/test_assignments.py::test_two_answers_at_once",
    "tests/device_api/test_enrol.py::test_a_token_is_claimed_once_however_many_try",
    "tests/device_api/test_enrol.py::test_two_machines_of_one_name_at_once",
    "tests/device_api/test_measurements.py::test_samples_are_stored_once",
    "tests/jobs/test_storage.py::test_equal_bytes_at_once_are_stored_once",
)


def test_two_at_once_on_postgresql() -> None:
    url = os.environ.get("TEST_DATABASE_URL") or HERE
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        pytest.skip(f"no PostgreSQL lets this user in: {error}")
    name = f"edgewise_{secrets.token_hex(6)}"  # pytest-django puts test_ before it
    env = {
        **os.environ,
        "DATABASE_URL": urlunsplit(urlsplit(url)._replace(path=f"/{name}")),
        "EDGEWISE_SECRET_KEY": "for-tests-only-" + "0123456789" * 5,
    }
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *AGAIN]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
