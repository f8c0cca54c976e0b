"""Fixtures: logged-in clients, a fleet and a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.test import Client

from tests.web import factories
from tests.web.undefined_variables import undefined_variables
from webapp.accounts.models import Role
from webapp.devices.models import Device
from webapp.jobs.models import Job


@pytest.fixture
def as_role(db: None) -> Callable[[str], Client]:
    """``as_role("viewer")`` is a client logged in with that role."""

    def log_in(role: str) -> Client:
        client = Client()
        client.force_login(factories.make_user(f"{role}-person", Role(role)))
        return client

    return log_in


@pytest.fixture
def ada(as_role: Callable[[str], Client]) -> Client:
    return as_role("admin")


@pytest.fixture
def fleet(db: None) -> list[Device]:
    return factories.make_fleet(3)


@pytest.fixture
def job(fleet: list[Device]) -> Job:
    return factories.running_job(fleet, rounds=2, samples=6)


@pytest.fixture(autouse=True)
def undefined() -> Iterator[list[str]]:
    """Fails a test that renders a template of the site with an undefined variable."""
    with undefined_variables() as names:
        yield names
    if names:
        pytest.fail(f"undefined in templates: {', '.join(sorted(set(names)))}")
