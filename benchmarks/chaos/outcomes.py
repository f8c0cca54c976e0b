"""The table of kills and jobs, and the differences between jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from benchmarks.chaos.disturbed_jobs import JobOutcome, Kill
from benchmarks.chaos.strikes import MOMENTS


def faults(reference: JobOutcome, jobs: Sequence[JobOutcome]) -> list[str]:
    """Jobs that did not complete or ended with other bits."""
    differences = []
    for number, job in enumerate(jobs, 1):
        if job.problem:
            differences.append(f"job {number}: {job.problem}")
        elif job.weights != reference.weights:
            pairs = zip(reference.weights, job.weights, strict=False)
            other = [mine for theirs, mine in pairs if theirs != mine]
            if other:
                text = (
                    f"round {other[0][0]} has the global weights {other[0][1][:16]}, "
                    "not the undisturbed ones"
                )
            else:
                text = f"{len(job.weights)} rounds closed, {len(reference.weights)} undisturbed"
            differences.append(f"job {number}: {text}")
    return differences


def table(targets: Sequence[str], reference: JobOutcome, jobs: Sequence[JobOutcome]) -> str:
    kills = [kill for job in jobs for kill in job.kills]
    counts = Counter((kill.strike.target, kill.strike.moment) for kill in kills)
    head = f"{'killed':<17}" + "".join(f"{moment.value:>14}" for moment in MOMENTS)
    lines = [f"{head}{'all':>6}{'continued after, median / max':>32}"]
    for target in targets:
        each = [counts[target, moment] for moment in MOMENTS]
        took = _took([kill for kill in kills if kill.strike.target == target])
        cells = "".join(f"{count or '.':>14}" for count in each)
        lines.append(f"{target:<17}{cells}{sum(each):>6}{took:>32}")
    totals = "".join(f"{sum(counts[t, m] for t in targets):>14}" for m in MOMENTS)
    lines.append(f"{'all':<17}{totals}{len(kills):>6}{_took(kills):>32}")
    pairs = {(kill.strike.target, kill.strike.moment) for kill in kills}
    states = {kill.strike.moment for kill in kills}
    equal = sum(not job.problem and job.weights == reference.weights for job in jobs)
    rounds = sum(len(job.weights) for job in jobs)
    extra = sum(job.seconds for job in jobs) - reference.seconds * len(jobs)
    lines += [
        "",
        f"kills                {len(kills)}",
        f"states covered       {len(states)} of {len(MOMENTS)}",
        f"pairs covered        {len(pairs)} of {len(MOMENTS) * len(targets)} (state, target)",
        f"jobs compared        {len(jobs)}, {rounds} rounds; equal bit for bit: {equal}",
        f"undisturbed job      {reference.seconds:.1f} s",
        f"a kill costs         {extra / max(1, len(kills)):.1f} s in the mean",
    ]
    return "\n".join(lines)


def _took(kills: Sequence[Kill]) -> str:
    seconds = [kill.moved_s for kill in kills if kill.moved_s is not None]
    return f"{median(seconds):.1f} s / {max(seconds):.1f} s" if seconds else ""
