"""The artefacts that a job requires, by policy and phase."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcore.rounds.job_lifecycle import JobPhase
from fedcore.rounds.retention import JobFacts, RetentionPolicy, RoundFacts, required_artefacts

LONG_AGO_S = 1e6


def _round(number: int, **changes: object) -> RoundFacts:
    row = RoundFacts(
        number=number,
        open=False,
        base=f"model-{number - 1}",
        model=f"model-{number}",
        state=f"state-{number}",
        step=f"step-{number}",
        score=float(number),
        ended_s=LONG_AGO_S,
        updates=(f"update-{number}-a", f"update-{number}-b"),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def _job(phase: JobPhase = JobPhase.RUNNING, rounds: int = 8, **changes: object) -> JobFacts:
    closed = [_round(number) for number in range(1, rounds)]
    last = _round(rounds, open=True, model="", state="", step="", ended_s=0.0)
    return replace(JobFacts(phase, f"model-{rounds - 1}", "", (*closed, last)), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "policy", [RetentionPolicy(1, 0.0), RetentionPolicy(3, 0.0), RetentionPolicy(100, 1e9)]
)
def test_open_round_is_retained_under_any_policy(policy: RetentionPolicy) -> None:
    required = required_artefacts(_job(), policy)
    assert {"model-7", "state-7", "update-8-a", "update-8-b"} <= required.keys()
    assert required["update-8-a"] == "round 8 is still open"


def test_folded_updates_and_older_states_are_not_required() -> None:
    required = required_artefacts(_job(), RetentionPolicy(3, 0.0))
    assert not any(name.startswith("update-7") for name in required)
    assert [name for name in required if name.startswith("state")] == ["state-7"]


def test_last_best_and_pinned_models_are_required() -> None:
    job = _job()
    best = replace(job.rounds[1], score=99.0)
    pinned = replace(job.rounds[3], pinned=True)
    rounds = (job.rounds[0], best, job.rounds[2], pinned, *job.rounds[4:])
    required = required_artefacts(replace(job, rounds=rounds), RetentionPolicy(2, 0.0))
    models = {name for name in required if name.startswith("model")}
    assert models == {"model-2", "model-4", "model-6", "model-7"}
    assert required["model-2"] == "round 2 has the best ROUGE-L"
    assert required["model-4"] == "round 4 is pinned"


def test_updates_are_required_for_the_policys_time() -> None:
    job = _job()
    recent = replace(job.rounds[-2], ended_s=3000.0)
    rounds = (*job.rounds[:-2], recent, job.rounds[-1])
    assert "update-7-a" in required_artefacts(
        replace(job, rounds=rounds), RetentionPolicy(3, 3600.0)
    )
    assert "update-7-a" not in required_artefacts(
        replace(job, rounds=rounds), RetentionPolicy(3, 2999.0)
    )


@pytest.mark.parametrize("phase", [JobPhase.COMPLETED, JobPhase.CANCELLED])
def test_finished_job_requires_models_but_no_state(phase: JobPhase) -> None:
    required = required_artefacts(_job(phase, merged="merged"), RetentionPolicy(1, 0.0))
    assert {"model-7", "merged"} <= required.keys()
    assert not any(name.startswith(("state", "update")) for name in required)


@pytest.mark.parametrize("phase", [JobPhase.FAILED, JobPhase.PAUSED, JobPhase.QUEUED])
def test_job_that_may_run_requires_model_and_state(phase: JobPhase) -> None:
    required = required_artefacts(_job(phase), RetentionPolicy(1, 0.0))
    assert {"model-7", "state-7"} <= required.keys()


def test_retention_policy_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="keep at least 1 model: a running job trains from it"):
        RetentionPolicy(0)
    with pytest.raises(ValueError, match="give 0 or more"):
        RetentionPolicy(1, -1.0)
