"""Rules of PFTT about its own options and others beside them."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.adapter import KIND_PATH
from fedcore.spec.options.method import MOST_RANK
from fedcore.spec.rules.contract import Rules


def _pftt_faults(spec: JobSpec) -> list[Fault]:
    """Personal ranks that cannot be, and what PFTT cannot be joined with."""
    faults = []
    for entry in spec.method.own_ranks:
        rank = entry.rpartition("=")[2]
        if not rank.isdecimal() or not 1 <= int(rank) <= MOST_RANK:
            message = f"{entry!r}: give a whole number from 1 to {MOST_RANK}"
            faults.append(Fault("method.own_ranks", message))
    if not spec.adapter.family.takes_personal_lora:
        message = (
            "must be bottleneck with pftt: bottlenecks are what devices share, beside a LoRA that "
            "each keeps"
        )
        faults.append(Fault(KIND_PATH, message))
    if spec.strategy.family.serves_state:
        message = (
            "scaffold finds a device's gradient from how far all that trains moved, and with pftt "
            "a part of it is the device's own and has no gradient on the server; take fedavg or "
            "fedprox"
        )
        faults.append(Fault("strategy.name", message))
    return faults


ROW = Rules((_pftt_faults,))
