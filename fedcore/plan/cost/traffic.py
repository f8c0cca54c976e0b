"""Bytes that a device moves in a round, headers not counted, and the codec of what it sends."""

from __future__ import annotations

import math
from dataclasses import replace

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.formats.codec_chain import PLAIN, Chain
from fedcore.formats.codec_choice import Transfer, choose
from fedcore.hardware.links import Link
from fedcore.plan.cost.workload import Workload
from fedcore.spec.job import JobSpec


def bytes_down(spec: JobSpec, method: Workload) -> int:
    """The first model, or the step to it, and the server's state where devices are to see it.

    What later ones hold beside is in ``fedcore.plan.cost.merged_base``.
    """
    state = PLAIN.payload(method.sent)[1] if spec.strategy.serves_state else 0
    return (spec.wire.step_chain or PLAIN).payload(method.sent)[1] + state


def uplink(spec: JobSpec, method: Workload, link: Link | None, train_s: float | None) -> Chain:
    """The chain of updates; with ``auto`` the one that the coordinator would choose by the link."""
    if spec.wire.chain is not None:
        return spec.wire.chain
    if link is None or math.isinf(link.up_bps):
        return Chain(packed=spec.wire.compress)
    former = Transfer(round(FP32_BYTES * method.sent_up), 0.0, train_s or 0.0)
    former = replace(former, seconds=link.up_s(former.size))
    return choose({"all": (method.sent_up,)}, [former], spec.wire.compress)
