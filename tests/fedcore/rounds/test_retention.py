"""What a job still needs, as laws over its rows."""

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
    made = [_round(number) for number in range(1, rounds)]
    last = _round(rounds, open=True, model="", state="", step="", ended_s=0.0)
    return replace(JobFacts(phase, f"model-{rounds - 1}", "", (*made, last)), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "policy", [RetentionPolicy(1, 0.0), RetentionPolicy(3, 0.0), RetentionPolicy(100, 1e9)]
)
def test_a_running_jobs_open_round_is_kept_whole_under_any_policy(policy: RetentionPolicy) -> None:
    kept = required_artefacts(_job(), policy)
    assert {"model-7", "state-7", "update-8-a", "update-8-b"} <= kept.keys()
    assert kept["update-8-a"] == "round 8 goes on"


def test_updates_of_folded_rounds_go_and_older_states_too() -> None:
    kept = required_artefacts(_job(), RetentionPolicy(3, 0.0))
    assert not any(name.startswith("update-7") for name in kept)
    assert [name for name in kept if name.startswith("state")] == ["state-7"]


def test_the_last_models_the_best_and_the_pinned_stay() -> None:
    job = _job()
    best = replace(job.rounds[1], score=99.0)
    pinned = replace(job.rounds[3], pinned=True)
    rounds = (job.rounds[0], best, job.rounds[2], pinned, *job.rounds[4:])
    kept = required_artefacts(replace(job, rounds=rounds), RetentionPolicy(2, 0.0))
    models = {name for name in kept if name.startswith("model")}
    assert models == {"model-2", "model-4", "model-6", "model-7"}
    assert kept["model-2"] == "round 2 has the best ROUGE-L"
    assert kept["model-4"] == "round 4 is pinned"


def test_updates_stay_as_long_as_the_policy_says() -> None:
    job = _job()
    young = replace(job.rounds[-2], ended_s=3000.0)
    rounds = (*job.rounds[:-2], young, job.rounds[-1])
    assert "update-7-a" in required_artefacts(
        replace(job, rounds=rounds), RetentionPolicy(3, 3600.0)
    )
    assert "update-7-a" not in required_artefacts(
        replace(job, rounds=rounds), RetentionPolicy(3, 2999.0)
    )


@pytest.mark.parametrize("phase", [JobPhase.COMPLETED, JobPhase.CANCELLED])
def test_what_cannot_go_on_keeps_its_models_and_no_state(phase: JobPhase) -> None:
    kept = required_artefacts(_job(phase, merged="merged"), RetentionPolicy(1, 0.0))
    assert {"model-7", "merged"} <= kept.keys()
    assert not any(name.startswith(("state", "update")) for name in kept)


@pytest.mark.parametrize("phase", [JobPhase.FAILED, JobPhase.PAUSED, JobPhase.QUEUED])
def test_what_may_go_on_keeps_what_it_goes_on_from(phase: JobPhase) -> None:
    kept = required_artefacts(_job(phase), RetentionPolicy(1, 0.0))
    assert {"model-7", "state-7"} <= kept.keys()


def test_a_policy_that_would_delete_a_running_jobs_base_is_refused() -> None:
    with pytest.raises(ValueError, match="base that a running job trains from; keep at least 1"):
        RetentionPolicy(0)
    with pytest.raises(ValueError, match="give 0 or more"):
        RetentionPolicy(1, -1.0)
