"""Report checks of the use of time, memory and energy."""

from __future__ import annotations

from webapp.common.units import duration, percent, plausible, significant
from webapp.jobs.analysis.device_metrics import ratio
from webapp.jobs.report.findings import Check, Evidence, Finding, listed
from webapp.jobs.report.job_figures import DeviceFigures, JobFigures, mean_mfu

# Thresholds of our choice.
GOOD_MFU, LOW_MFU = 0.3, 0.1
HIGH_COMPUTE = 0.8
MAX_IDLE = 0.2
LOW_GRANULARITY = 1.0  # G: less computing than transfers
SLOW_PHASE = 0.15
NEAR_LIMIT = 0.85
ENERGY_ELSEWHERE = 0.3
MAX_RETRANSFER = 0.05


def used_well(job: JobFigures) -> Finding | None:
    busy = [one for one in job.devices if one.mfu is not None and GOOD_MFU <= one.mfu <= 1.0]
    mfu = mean_mfu([work for one in busy for work in one.works])
    if mfu is None:
        return None
    whole = len(busy) == len([one for one in job.devices if one.works])
    whom = "Training" if whole else f"On {listed([one.name for one in busy])} training"
    return Finding(
        "good",
        "The arithmetic units were busy",
        f"{whom} reached {percent(mfu)} of the measured peak (MFU), padding not counted.",
        tuple(_mfu_evidence(one) for one in busy),
    )


def _mfu_evidence(device: DeviceFigures) -> Evidence:
    return Evidence(f"{device.name}, of its measured peak", device.mfu or 0.0, "share")


def low_mfu(job: JobFigures) -> Finding | None:
    slow = [one for one in job.devices if one.mfu is not None and one.mfu < LOW_MFU]
    if not slow:
        return None
    by_cause: dict[str, list[str]] = {}
    for one in slow:
        # The first usual cause that the device's figures support.
        load, optimizer = one.phase_share("load") or 0.0, one.phase_share("optimizer") or 0.0
        precisions = {work.precision for work in one.works}
        cause = "small batches or memory bandwidth (see its roofline)"
        if load >= SLOW_PHASE:
            cause = f"reading data took {percent(load)} of the time"
        elif precisions == {"fp32"} and one.peaks.get("bf16", 0.0) > one.peaks.get("fp32", 0.0):
            cause = "it trained in fp32 where bf16 is faster"
        elif optimizer >= SLOW_PHASE:
            share = percent(optimizer)
            cause = f"the optimizer, bound by memory bandwidth, took {share} of the time"
        by_cause.setdefault(cause, []).append(one.name)
    causes = "; ".join(f"{cause} ({listed(names)})" for cause, names in by_cause.items())
    return Finding(
        "bad",
        "Compute was mostly idle",
        f"MFU stayed below {percent(LOW_MFU)} of the measured peak. Probable cause: {causes}.",
        tuple(_mfu_evidence(one) for one in slow),
    )


def impossible_mfu(job: JobFigures) -> Finding | None:
    odd = [one for one in job.devices if one.mfu is not None and one.mfu > 1.0]
    if not odd:
        return None
    names = listed([one.name for one in odd])
    return Finding(
        "bad",
        "A measured peak is too low",
        f"{names} trained faster than the measured peak, so its MFU is meaningless. Measure the "
        "peak again while the device is idle.",
        tuple(_mfu_evidence(one) for one in odd),
    )


def mostly_computing(job: JobFigures) -> Finding | None:
    busy_s = job.total("compute_s") + _transfer_s(job) + job.total("wait_s")
    share = ratio(job.total("compute_s"), busy_s)
    idle = _idle_share(job) or 0.0
    if share is None or share < HIGH_COMPUTE or idle >= MAX_IDLE:
        return None
    return Finding(
        "good",
        "Most time was computing",
        f"{percent(share)} of training time was computing, the rest transfers and waiting for the "
        "server.",
        (
            Evidence("computing", job.total("compute_s"), "s"),
            Evidence("sending and receiving", _transfer_s(job), "s"),
            Evidence("waiting for the server", job.total("wait_s"), "s"),
        ),
    )


def _transfer_s(job: JobFigures) -> float:
    return job.total("download_s") + job.total("upload_s")


def _idle_share(job: JobFigures) -> float | None:
    idle = sum(device.idle_s for device in job.devices)
    return ratio(idle, sum(device.in_rounds_s for device in job.devices))


def waiting_for_the_slowest(job: JobFigures) -> Finding | None:
    share = _idle_share(job)
    active = [device for device in job.devices if device.works]
    if job.asynchronous or share is None or share < MAX_IDLE or len(active) < 2:
        return None
    slowest = max(active, key=lambda device: device.last_in)
    idle = sum(device.idle_s for device in active)
    return Finding(
        "bad",
        "Devices waited for the slowest",
        f"They were idle for {percent(share)} of the collecting time, {duration(idle)} in total. "
        f"{slowest.name} was last in {slowest.last_in} of {job.rounds_closed} rounds. Fewer local "
        "steps for it, tiers or an asynchronous job would help.",
        tuple(
            Evidence(f"{one.name}, waiting", one.idle_s, "s")
            for one in sorted(active, key=lambda one: -one.idle_s)
        ),
    )


def communication(job: JobFigures) -> Finding | None:
    communicating = [
        d for d in job.devices if d.granularity is not None and d.granularity < LOW_GRANULARITY
    ]
    if not communicating:
        return None
    worst = min(communicating, key=lambda device: device.granularity or 0.0)
    up, down = worst.total("upload_s"), worst.total("download_s")
    way = "uploading" if up >= down else "downloading"
    return Finding(
        "bad",
        "Transfers took longer than training",
        f"{listed([one.name for one in communicating])} spent more time on transfers than "
        f"on computing (G below {significant(LOW_GRANULARITY)}), {worst.name} mostly on {way}. "
        "Fewer bytes (LoRA, int8 on the wire) or more local steps per round would help.",
        tuple(Evidence(f"{one.name}, G", one.granularity or 0.0) for one in communicating),
    )


def loading(job: JobFigures) -> Finding | None:
    slow = [one for one in job.devices if (one.phase_share("load") or 0.0) >= SLOW_PHASE]
    if not slow:
        return None
    return Finding(
        "bad",
        "Training waited for its data",
        f"{listed([one.name for one in slow])} spent over {percent(SLOW_PHASE)} of the "
        "training time on reading and tokenizing. A faster disk or cached tokens would help.",
        tuple(
            Evidence(f"{one.name}, share of training", one.phase_share("load") or 0.0, "share")
            for one in slow
        ),
    )


def padding(job: JobFigures) -> Finding | None:
    if job.option("train", "kernels") != "plain" or not job.works:
        return None
    if job.option("train", "batching") == "length":
        return None
    size = plausible(job.option("train", "batch_size")) or 0.0
    return Finding(
        "bad",
        "Compute was spent on padding",
        "Plain kernels pad each batch to its longest example, and examples were not batched by "
        "length. Fast kernels or batching by length avoid that. Its cost was not measured.",
        (Evidence("examples in a batch", size, "count"),),
    )


def memory_near_its_limit(job: JobFigures) -> Finding | None:
    shares = [(one, ratio(one.peak_memory_bytes, one.memory_bytes)) for one in job.devices]
    full = [(one, share) for one, share in shares if share is not None and share >= NEAR_LIMIT]
    if not full:
        return None
    return Finding(
        "bad",
        "Memory was nearly full",
        f"{listed([one.name for one, _ in full])} used over {percent(NEAR_LIMIT)} of the "
        "available memory. A longer text may end the training. A smaller batch, checkpointing or "
        "an int8 base needs less.",
        tuple(Evidence(f"{one.name}, peak of its memory", share, "share") for one, share in full),
    )


def energy_elsewhere(job: JobFigures) -> Finding | None:
    known = [work for work in job.works if work.compute_j is not None]
    computing = sum(work.compute_j or 0.0 for work in known)
    other = sum((work.communication_j or 0.0) + (work.waiting_j or 0.0) for work in known)
    share = ratio(other, computing + other)
    if share is None or share < ENERGY_ELSEWHERE:
        return None
    kind = " (partly estimated)" if any(work.is_estimated for work in known) else ""
    return Finding(
        "bad",
        "Energy was spent on more than computing",
        f"{percent(share)} of the energy{kind} was spent on transfers and waiting.",
        (
            Evidence("while computing", computing, "J"),
            Evidence("while communicating", sum(w.communication_j or 0.0 for w in known), "J"),
            Evidence("while waiting", sum(w.waiting_j or 0.0 for w in known), "J"),
        ),
    )


def sent_again(job: JobFigures) -> Finding | None:
    known = [work for work in job.works if work.retransfer_bytes is not None and work.at_socket]
    again = sum(work.retransfer_bytes or 0.0 for work in known)
    share = ratio(again, sum((w.up_bytes or 0.0) + (w.down_bytes or 0.0) for w in known))
    if share is None or share < MAX_RETRANSFER:
        return None
    return Finding(
        "bad",
        "Bytes were sent twice",
        f"{percent(share)} of the bytes were sent or received again after interrupted transfers.",
        (Evidence("sent or received again", again, "B"),),
    )


CHECKS: tuple[Check, ...] = (
    used_well,
    mostly_computing,
    waiting_for_the_slowest,
    communication,
    low_mfu,
    impossible_mfu,
    loading,
    padding,
    memory_near_its_limit,
    energy_elsewhere,
    sent_again,
)
