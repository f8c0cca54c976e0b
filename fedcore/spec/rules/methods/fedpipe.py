"""Rules of FedPipe: what a job has to be so that its devices can be planned."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import KIND_PATH
from fedcore.spec.rules.contract import Rules


def _needs_lora(spec: JobSpec) -> list[Fault]:
    if spec.adapter.family.trains_low_rank_factors:
        return []
    message = "must be lora with fedpipe, which chooses the ranks of LoRA adapters"
    return [Fault(KIND_PATH, message)]


def _needs_products(spec: JobSpec) -> list[Fault]:
    adapter = spec.adapter
    if adapter.averaging.fits_any_device or not adapter.family.trains_low_rank_factors:
        return []
    message = (
        "must be flexlora with fedpipe: its devices train unlike matrices at unlike ranks, which "
        "only the average of their products makes one model of"
    )
    return [Fault("adapter.aggregation", message)]


def _needs_the_first_evaluation(spec: JobSpec) -> list[Fault]:
    if spec.evaluation.initial:
        return []
    message = "must be on with fedpipe: devices score their matrices with that evaluation"
    return [Fault("evaluation.initial", message)]


def _decides_ranks_itself(spec: JobSpec) -> list[Fault]:
    message = "is what fedpipe decides; leave it out"
    names = [name for name in ("ranks", "alphas", "modules") if getattr(spec.adapter, name)]
    return [Fault(f"adapter.{name}", message) for name in names]


ROW = Rules((_needs_lora, _needs_products, _needs_the_first_evaluation, _decides_ranks_itself))
