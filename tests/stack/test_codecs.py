"""Codecs over the real stack: a killed agent, error feedback, steps; and the simulation's bits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import EXACT, Running
from tests.stack.simulation import simulated

pytestmark = [pytest.mark.stack, pytest.mark.slow]

WIRE = {"uplink": "int4", "top_k": 0.5, "compress": True, "downlink": "int8"}
SPEC = {**EXACT, "wire": WIRE, "rounds": 3}


@pytest.fixture(scope="module")
def killed(running: Running) -> dict[str, Any]:
    """A job in whose second round, with a residual at stake, one agent is killed."""
    victim = "law-office-pc"
    job = running.site.launch(SPEC)
    running.wait(
        "training on the victim in round 2",
        lambda: (
            len(running.rounds(job)) > 2
            and running.rounds(job)[2]["number"] == 2
            and running.training(job, victim)
        ),
    )
    running.stack.processes.kill(f"agent-{victim}")
    time.sleep(0.5)
    running.stack.start_agent(victim)
    return running.done(job)


def test_codecs_give_the_simulation_bits(
    running: Running, killed: dict[str, Any], tmp_path: Path
) -> None:
    attempts = [row["attempt"] for row in running.assignments(killed, task="train")]
    assert attempts.count(2) == 1
    simulation = simulated(running, SPEC, tmp_path)
    launched = running.rounds(killed)
    assert [sha for sha, _ in simulation] == [
        row["global_artefact"] or row["base_artefact"] for row in launched
    ]


def test_updates_have_the_size_of_their_codec(running: Running, killed: dict[str, Any]) -> None:
    """Half of all numbers in half a byte each, a bit for each place, and headers."""
    rows = running.assignments(killed, task="train", phase="folded")
    model = killed["model_info"]["payload_bytes"]
    assert len(rows) == 9
    assert all(0 < row["bytes_up"] < model / 6 for row in rows)
