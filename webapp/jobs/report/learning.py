"""Report checks of learning, failures and fairness between devices."""

from __future__ import annotations

from webapp.common.units import percent, si, significant
from webapp.jobs.analysis.device_metrics import ratio
from webapp.jobs.report.findings import Check, Evidence, Finding, listed
from webapp.jobs.report.job_figures import DeviceFigures, JobFigures

# Thresholds of our choice. Scores are ROUGE-L, F1 in percent.
GAIN = 1.0
SPREAD = 5.0
LOST = 0.1
# Work and data do not match from this ratio and this difference of their shares on.
UNEVEN_FACTOR, UNEVEN_SHARE = 1.5, 0.1


def learned(job: JobFigures) -> Finding | None:
    gain = _gain(job.first_score, job.last_score)
    if gain is None or gain < GAIN:
        return None
    joules = job.total("joules")
    kind = " (partly estimated)" if any(work.is_estimated for work in job.works) else ""
    cost = f" and {si(joules, 'J')}{kind} of energy" if joules else ""
    return Finding(
        "good",
        "The model learned",
        f"ROUGE-L rose by {significant(gain)} points with {si(job.total('tokens'))} tokens{cost}.",
        (
            Evidence("ROUGE-L before, F1 in percent", job.first_score or 0.0),
            Evidence("ROUGE-L after", job.last_score or 0.0),
        ),
    )


def nothing_learned(job: JobFigures) -> Finding | None:
    gain = _gain(job.first_score, job.last_score)
    worse = (
        job.first_loss is not None and job.last_loss is not None and job.last_loss > job.first_loss
    )
    if (gain is None or gain >= 0) and not worse:
        return None
    evidence = [("ROUGE-L, change", gain, "points"), ("loss before", job.first_loss, "")]
    evidence.append(("loss after, nats per token", job.last_loss, ""))
    return Finding(
        "ugly",
        "The model is worse than at the start",
        "Its score fell or its loss rose. Try a lower learning rate or another server strategy.",
        tuple(Evidence(label, value, unit) for label, value, unit in evidence if value is not None),
    )


def _gain(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def everyone_delivered(job: JobFigures) -> Finding | None:
    active = [one for one in job.devices if one.offered]
    if not active or any(len(one.works) < one.offered for one in active) or job.rounds_failed:
        return None
    return Finding(
        "good",
        "All devices delivered every update",
        f"Each of {len(active)} devices delivered all updates that were requested from it.",
        (Evidence("updates", float(sum(len(one.works) for one in active)), "count"),),
    )


def never_delivered(job: JobFigures) -> Finding | None:
    silent = [one for one in job.devices if one.offered and not one.works]
    if not silent:
        return None
    why = "; ".join(dict.fromkeys(reason for one in silent for reason in one.reasons[:1]))
    examples = sum(one.examples for one in silent)
    share = ratio(examples, sum(one.examples for one in job.devices)) or 0.0
    reasons = f" Reasons: {why[:300]}." if why else ""
    return Finding(
        "ugly",
        "Some devices never delivered",
        f"{listed([one.name for one in silent])} delivered no update, so {percent(share)} of "
        f"the examples did not count.{reasons}",
        tuple(Evidence(f"{one.name}, requests", float(one.offered), "count") for one in silent),
    )


def work_was_lost(job: JobFigures) -> Finding | None:
    some = [one for one in job.devices if one.lost and one.works]
    share = ratio(sum(one.lost for one in job.devices), sum(one.offered for one in job.devices))
    if not some or share is None or share < LOST:
        return None
    why = listed(list(dict.fromkeys(reason for one in some for reason in one.reasons))[:3])
    reasons = f" Reasons: {why[:300]}." if why else ""
    return Finding(
        "ugly",
        "Work was lost",
        f"{percent(share)} of the requested updates failed, were refused or arrived late.{reasons}",
        tuple(Evidence(f"{one.name}, lost", float(one.lost), "count") for one in some),
    )


def failed_rounds(job: JobFigures) -> Finding | None:
    if not job.rounds_failed and job.phase != "failed":
        return None
    many = f"{job.rounds_failed} round{'' if job.rounds_failed == 1 else 's'} failed"
    event = "The job failed" if job.phase == "failed" else many
    why = f": {job.reason}" if job.reason else ""
    return Finding(
        "ugly",
        "The job failed" if job.phase == "failed" else "Rounds failed",
        f"{event}{why}.".replace("..", "."),
        (
            Evidence("rounds closed", float(job.rounds_closed), "count"),
            Evidence("rounds failed", float(job.rounds_failed), "count"),
            Evidence("time of failed rounds", job.failed_s, "s"),
        ),
    )


def work_against_data(job: JobFigures) -> Finding | None:
    """Whether a device's share of the training is far from its share of the data."""
    work = sum(one.trained_examples for one in job.devices)
    data = sum(one.examples for one in job.devices)
    if not work or not data or len(job.devices) < 2:
        return None
    shares = [(one, one.trained_examples / work, one.examples / data) for one in job.devices]
    uneven = []
    for one, trained, data_share in shares:
        imbalance = max(trained, data_share) / max(min(trained, data_share), 1e-9)
        differs = imbalance >= UNEVEN_FACTOR and abs(trained - data_share) >= UNEVEN_SHARE
        if one.works and differs:
            uneven.append((one, trained, data_share))
    if not uneven:
        return None
    worst, did, holds = max(uneven, key=lambda item: abs(item[1] - item[2]))
    less = "less" if did < holds else "more"
    return Finding(
        "ugly",
        "Work and data did not match",
        f"{worst.name} did {percent(did)} of the work with {percent(holds)} of the data, {less} "
        "than its share. The model favours the devices that worked more.",
        tuple(
            evidence
            for one, trained, data_share in uneven
            for evidence in (
                Evidence(f"{one.name}, share of examples trained", trained, "share"),
                Evidence(f"{one.name}, share of data", data_share, "share"),
            )
        ),
    )


def unequal_scores(job: JobFigures) -> Finding | None:
    scored = _scored(job)
    if len(scored) < 2:
        return None
    best, worst = scored[-1], scored[0]
    spread = (best.last_score or 0.0) - (worst.last_score or 0.0)
    if spread < SPREAD:
        return None
    return Finding(
        "ugly",
        "The model serves some devices better than others",
        f"On {best.name}'s data it reaches ROUGE-L {significant(best.last_score or 0.0)}, on "
        f"{worst.name}'s {significant(worst.last_score or 0.0)}. Their texts may also "
        "differ in difficulty.",
        tuple(Evidence(f"{one.name}, ROUGE-L", one.last_score or 0.0) for one in scored),
    )


def equal_scores(job: JobFigures) -> Finding | None:
    scored = _scored(job)
    if len(scored) < 2:
        return None
    spread = (scored[-1].last_score or 0.0) - (scored[0].last_score or 0.0)
    if spread >= SPREAD:
        return None
    return Finding(
        "good",
        "The model serves all devices alike",
        f"ROUGE-L differs by at most {significant(spread)} points between the devices' own data.",
        tuple(Evidence(f"{one.name}, ROUGE-L", one.last_score or 0.0) for one in scored),
    )


def _scored(job: JobFigures) -> list[DeviceFigures]:
    known = [one for one in job.devices if one.last_score is not None]
    return sorted(known, key=lambda one: one.last_score or 0.0)


def personalised_models(job: JobFigures) -> Finding | None:
    """Whether personalised models serve their devices better than the shared one."""
    both = [
        (one, one.own_score - one.last_score)
        for one in job.devices
        if one.own_score is not None and one.last_score is not None
    ]
    if not both:
        return None
    mean = sum(gain for _, gain in both) / len(both)
    better = sum(gain > 0 for _, gain in both)
    return Finding(
        "good" if mean >= 0 else "bad",
        "Personalised models",
        f"For {better} of {len(both)} devices the personalised model is better on their own data "
        f"than the shared one. The mean difference in ROUGE-L is {mean:+.1f} points.",
        tuple(
            Evidence(f"{one.name}, personalised over shared", gain, "points") for one, gain in both
        ),
        key="own_models",
    )


def device_rewards(job: JobFigures) -> Finding | None:
    """Whether training raised each device's own reward."""
    known = [(one.name, one.rewarded.reward_gain) for one in job.devices if one.rewarded]
    gains = [(name, gain) for name, gain in known if gain is not None]
    if not gains:
        return None
    better, fell = sum(gain > 0 for _, gain in gains), [name for name, gain in gains if gain < 0]
    advice = (
        f" It fell for {listed(fell)}. A lower learning rate or a stronger method.anchor keeps a "
        "device closer to the model it received."
    )
    return Finding(
        "bad" if fell else "good",
        "Rewards of the devices",
        f"In the last evaluated round, training raised the reward of {better} of {len(gains)} "
        f"devices.{advice if fell else ''}",
        tuple(Evidence(f"{name}, change of reward", gain) for name, gain in gains),
        key="own_rewards",
    )


def gain_over_alone(job: JobFigures) -> Finding | None:
    """Whether the job gave better models than the local-only baselines, where they exist."""
    known = [(one, one.over_alone) for one in job.devices if one.over_alone is not None]
    if not known:
        return None
    lost = [one.name for one, gain in known if gain <= -GAIN]
    mean = sum(gain for _, gain in known) / len(known)
    better = sum(gain > 0 for _, gain in known)
    title = "Taking part was worth it" if mean > 0 else "Taking part was not worth it"
    worse = f" {listed(lost)} would have done better by training alone." if lost else ""
    if lost:
        who = "All" if len(lost) == len(job.devices) else "Some"
        title = f"{who} devices would have done better alone"
    return Finding(
        "ugly" if lost else "good" if mean > 0 else "bad",
        title,
        f"{better} of {len(known)} devices did better with the job's model than by training "
        f"alone. The mean difference in ROUGE-L is {mean:+.1f} points.{worse}",
        tuple(Evidence(f"{one.name}, over training alone", gain, "points") for one, gain in known),
    )


def worse_than_before(job: JobFigures) -> Finding | None:
    falls = [(one, _gain(one.first_score, one.last_score)) for one in job.devices]
    fell = [(one, gain) for one, gain in falls if gain is not None and gain <= -GAIN]
    if not fell:
        return None
    return Finding(
        "ugly",
        "Some devices lost by taking part",
        f"For {listed([one.name for one, _ in fell])} the model is worse on its own data than "
        "before the job.",
        tuple(Evidence(f"{one.name}, ROUGE-L change", gain, "points") for one, gain in fell),
        key="left_behind",
    )


CHECKS: tuple[Check, ...] = (
    learned,
    everyone_delivered,
    equal_scores,
    personalised_models,
    gain_over_alone,
    device_rewards,
    nothing_learned,
    never_delivered,
    work_was_lost,
    failed_rounds,
    work_against_data,
    unequal_scores,
    worse_than_before,
)
