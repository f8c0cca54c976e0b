"""Training alone on real agents: requested over the API, equal to the simulation's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.stack.conftest import EXACT, Running

pytestmark = [pytest.mark.stack, pytest.mark.slow]

# Ranks that differ, a server optimizer and a restraint: what stays, and what goes, of a job.
SPEC: dict[str, Any] = {
    **EXACT,
    "name": "together",
    "adapter": {"rank": 4, "aggregation": "flexlora", "ranks": "1,2,4", "dropout": 0.1},
    "method": {"name": "fedjudge"},
    "strategy": {"name": "fedavg", "clip_update_norm": 1.0},
    "data": {"max_validation_examples": 4, "max_source_tokens": 96, "max_target_tokens": 24},
    "train": {**EXACT["train"], "local_steps": 4, "batch_size": 2},
    "evaluation": {"every": 0, "initial": False},
}


def test_baseline_gains_equal_the_simulation(running: Running, tmp_path: Path) -> None:
    job = running.done(running.site.launch(SPEC))
    where = f"/jobs/{job['id']}/alone/"
    before = running.site.get(where)
    assert not before["asked"] and before["can_ask"] and before["cost_s"] > 0, before
    running.site.post(where)
    second = running.site.post(where)
    assert second["asked"] and second["open"], second

    def ended() -> Any:
        comparison = running.site.get(where)
        return None if comparison["open"] else comparison

    comparison = running.wait("end of all trainings alone", ended, 240)
    expected = running.simulator.ask("local_baseline", SPEC, running.data, tmp_path)
    assert [row["state"] for row in comparison["devices"]] == ["completed"] * 3, comparison
    fields = expected["devices"][0]
    assert [{name: row[name] for name in fields} for row in comparison["devices"]] == expected[
        "devices"
    ]
    assert comparison["summary"] == expected["summary"]
    assert comparison["summary"]["shared"]["devices"] == 3
    listed = [row["id"] for row in running.site.all_rows("/jobs/")]
    mine = [row["id"] for row in running.site.all_rows("/jobs/", alone_of=job["id"])]
    assert sorted(mine) == sorted(row["alone_job"] for row in comparison["devices"])
    assert not set(mine) & set(listed) and job["id"] in listed
