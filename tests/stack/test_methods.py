"""Every method as a launched job: three agents, the carried model, two short rounds, all real.

A method is a row of METHODS: its name, what its specification changes, and what must then be true
of the job besides its end. ``same_bits`` asks the simulation for the same global weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedcore.spec_adapter import LORA_TARGETS
from tests.stack.conftest import EXACT, Running
from tests.stack.simulation import simulated

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@dataclass(frozen=True)
class Done:
    """A job that completed: the running site, its specification, its row, its rounds."""

    running: Running
    spec: dict[str, Any]
    job: dict[str, Any]
    rounds: list[dict[str, Any]]
    folder: Path


Check = Callable[[Done], None]

QUICK: dict[str, Any] = {
    **EXACT,
    "data": {"max_validation_examples": 2, "max_source_tokens": 96, "max_target_tokens": 24},
    "train": {**EXACT["train"], "local_steps": 2, "batch_size": 2},
    "strategy": {"name": "fedavg"},
    "evaluation": {"every": 0, "initial": False},
}


def quick(changes: dict[str, Any]) -> dict[str, Any]:
    """The short job with a row's changes, group by group."""
    spec = dict(QUICK)
    for name, value in changes.items():
        spec[name] = {**spec.get(name, {}), **value} if isinstance(value, dict) else value
    return spec


def same_bits(done: Done) -> None:
    """The simulation of the same specification makes the same global weights."""
    launched = [row["global_artefact"] or row["base_artefact"] for row in done.rounds]
    assert [sha for sha, _ in simulated(done.running, done.spec, done.folder)] == launched


def planned_within(budget: str) -> Check:
    """Every device was planned once, with less than all it could adapt."""

    def check(done: Done) -> None:
        events = done.running.site.events_after(done.job["id"], 0)
        told = [event["text"] for event in events if ": planned: " in event["text"]]
        assert len(told) == 3 and len(set(told)) == 3, told
        assert all(f"would need 474.9 MB of {budget}; it adapts " in text for text in told), told

    return check


METHODS: tuple[tuple[str, dict[str, Any], tuple[Check, ...]], ...] = (
    ("fedavgm", {"strategy": {"name": "fedavgm"}}, (same_bits,)),
    (
        "fedpipe",  # room for some of the matrices, at low ranks, on a base in nf4
        {
            "adapter": {"rank": 8, "aggregation": "flexlora", "targets": list(LORA_TARGETS)},
            "method": {"name": "fedpipe", "memory_budget_mb": 455.5},
            "evaluation": {"every": 0, "initial": True},
        },
        (planned_within("455.5 MB"), same_bits),
    ),
)


@pytest.mark.parametrize(("name", "changes", "checks"), METHODS, ids=[row[0] for row in METHODS])
def test_a_launched_job_of_each_method_completes(
    running: Running,
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
    checks: tuple[Check, ...],
) -> None:
    spec = {**quick(changes), "name": name}
    job = running.done(running.site.launch(spec))
    rounds = running.rounds(job)
    assert [(row["number"], row["phase"]) for row in rounds] == [
        (number, "closed") for number in range(spec["rounds"] + 1)
    ]
    assert math.isfinite(rounds[-1]["evaluation"]["loss"])
    made = [row["global_artefact"] for row in rounds[1:]]
    assert len(set(made)) == len(made), "a round changed nothing"
    for check in checks:
        check(Done(running, spec, job, rounds, tmp_path))
