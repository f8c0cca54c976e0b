"""The upload codec for a device's link, in a job with ``wire.uplink`` ``auto``.

fp32 if nothing is known of the link or it is fast (100 Mbit/s or more). Otherwise the first of
fp32, bf16, int8 and int4 whose upload takes at most two seconds or a tenth of the training time,
whichever is longer, or else int4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedcore.formats.codec_chain import Chain, Shapes
from fedcore.formats.update_header import payload_bytes

FAST_BPS = 12.5e6  # bytes per second
SHORT_S = 2.0
SHARE = 0.1
LADDER = ("fp32", "bf16", "int8", "int4")


@dataclass(frozen=True)
class Transfer:
    """A former upload of a device (bytes, seconds), and the training before it (seconds)."""

    size: int
    seconds: float
    training_s: float


def choose(shapes: Shapes, former: Iterable[Transfer], packed: bool = False) -> Chain:
    """The chain for the next update. ``former``: the device's newest transfers."""
    known = [item for item in former if item.size > 0 and item.seconds > 0]
    if not known:
        return Chain(packed=packed)
    uplink_bps = sum(item.size for item in known) / sum(item.seconds for item in known)
    training_s = sum(item.training_s for item in known) / len(known)
    limit_s = max(SHORT_S, SHARE * training_s)
    for name in LADDER:
        chain = Chain(name, packed=packed)
        if uplink_bps >= FAST_BPS or payload_bytes(chain, shapes) / uplink_bps <= limit_s:
            return chain
    return chain
