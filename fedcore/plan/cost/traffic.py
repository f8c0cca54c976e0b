"""Bytes downloaded and uploaded per round (without headers), and the upload codec."""

from __future__ import annotations

import math
from dataclasses import replace

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.formats.codec_chain import PLAIN, Chain
from fedcore.formats.codec_choice import Transfer, choose
from fedcore.hardware.links import Link
from fedcore.plan.cost.workload import Workload
from fedcore.spec.job import JobSpec


def bytes_down(spec: JobSpec, workload: Workload) -> int:
    """Bytes of the model or model step, and of the server's state if devices read it.

    Growth of later models: ``fedcore.plan.cost.merged_base``.
    """
    state = PLAIN.payload(workload.served_weights)[1] if spec.strategy.family.serves_state else 0
    return (spec.wire.step_chain or PLAIN).payload(workload.served_weights)[1] + state


def uplink_chain(
    spec: JobSpec, workload: Workload, link: Link | None, train_s: float | None
) -> Chain:
    """The codec chain of updates; with ``auto`` the coordinator's choice for the link."""
    if spec.wire.chain is not None:
        return spec.wire.chain
    if link is None or math.isinf(link.up_bps):
        return Chain(packed=spec.wire.compress)
    former = Transfer(round(FP32_BYTES * workload.update_weights), 0.0, train_s or 0.0)
    former = replace(former, seconds=link.up_s(former.size))
    return choose({"all": (workload.update_weights,)}, [former], spec.wire.compress)
