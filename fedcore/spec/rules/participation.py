"""Combinations that a job specification refuses: rules about the group ``participation``."""

from __future__ import annotations

from fedcore.errors import Fault
from fedcore.spec.job import JobSpec
from fedcore.spec.options.participation import ParticipationSpec
from fedcore.spec.rules.contract import Rule

# Options that say how long a synchronous round waits for whom.
WAITING = ("quorum", "over_selection", "deadline_quantile", "tiers")


def _participation_faults(spec: JobSpec) -> list[Fault]:
    """Devices and times of a round that contradict each other, and what a buffer does not read."""
    part, default, faults = spec.participation, ParticipationSpec(), []
    if part.devices and part.minimum > len(part.devices):
        message = f"asks for more devices than the {len(part.devices)} named; name more or lower it"
        faults.append(Fault("participation.minimum", message))
    if part.lease_s > part.deadline_s:
        message = f"is longer than the deadline of {part.deadline_s:g} s; lower it"
        faults.append(Fault("participation.lease_s", message))
    if part.buffered:
        wrong = [name for name in WAITING if getattr(part, name) != getattr(default, name)]
        for name in wrong:
            message = "is for synchronous rounds; a buffer waits for nobody. Leave it at"
            value = f"{getattr(default, name):g}"
            faults.append(Fault(f"participation.{name}", f"{message} {value}"))
        if part.devices and part.buffer_size > len(part.devices):
            message = f"is more than the {len(part.devices)} devices named; name more or lower it"
            faults.append(Fault("participation.buffer_size", message))
        return faults
    if 0 < part.deadline_quantile < part.quorum:
        message = f"lets fewer devices in than the quorum of {part.quorum:g} needs; raise it"
        faults.append(Fault("participation.deadline_quantile", message))
    if part.tiers > 1 and part.fraction * part.tiers > 1 + 1e-9:
        message = (
            f"make a tier hold fewer devices than a round wants ({part.fraction:g} of all); "
            f"lower participation.fraction to at most {1 / part.tiers:.3g}"
        )
        faults.append(Fault("participation.tiers", message))
    return faults


RULES: tuple[Rule, ...] = (_participation_faults,)
