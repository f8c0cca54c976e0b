"""Bytes that a device moves in a round, headers not counted, and the codec of what it sends."""

from __future__ import annotations

import math
from dataclasses import replace

from fedcore.plan.flops import FP32_BYTES
from fedcore.plan.links import Link
from fedcore.plan.method import Method
from fedcore.plan.wire_auto import Transfer, choose
from fedcore.plan.wire_chain import PLAIN, Chain
from fedcore.spec import JobSpec


def bytes_down(spec: JobSpec, method: Method) -> int:
    """The first model, or the step to it, and the server's state where devices are to see it.

    What later ones hold beside is in ``fedcore.plan.merged``.
    """
    state = PLAIN.payload(method.sent)[1] if spec.strategy.serves_state else 0
    return (spec.wire.step_chain or PLAIN).payload(method.sent)[1] + state


def uplink(spec: JobSpec, method: Method, link: Link | None, train_s: float | None) -> Chain:
    """The chain of updates; with ``auto`` the one that the coordinator would choose by the link."""
    if spec.wire.chain is not None:
        return spec.wire.chain
    if link is None or math.isinf(link.up_bps):
        return Chain(packed=spec.wire.compress)
    former = Transfer(round(FP32_BYTES * method.sent_up), 0.0, train_s or 0.0)
    former = replace(former, seconds=link.up_s(former.size))
    return choose({"all": (method.sent_up,)}, [former], spec.wire.compress)
