"""How updates and models travel: the group ``wire`` of a job specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedcore.errors import Fault
from fedcore.plan.wire_chain import VALUES, Chain
from fedcore.spec_checks import one_of, option, real, truth

if TYPE_CHECKING:
    from fedcore.spec import JobSpec

AUTO = "auto"
DOWNLINKS = tuple(name for name in VALUES if name != "fp16")


@dataclass(frozen=True)
class WireSpec:
    uplink: str = option(
        AUTO, one_of(AUTO, *VALUES), "Updates travel as", "auto: fp32, less on a slow link"
    )
    top_k: float = option(
        1.0, real(0, 1, above=True), "Share of an update sent", "the largest numbers; 1: all", True
    )
    error_feedback: bool = option(
        True, truth(), "Error feedback", "what a codec lost is added to the next update", True
    )
    compress: bool = option(False, truth(), "Compress", "zstd, as the last step", True)
    downlink: str = option(
        "fp32", one_of(*DOWNLINKS), "Models travel as", "else: the step since the last one", True
    )

    @property
    def chain(self) -> Chain | None:
        """The chain of updates; None where it depends on each device's link."""
        if self.uplink == AUTO:
            return None
        return Chain(self.uplink, self.top_k, self.compress)

    @property
    def step_chain(self) -> Chain | None:
        """The chain of the server's step; None where whole models travel."""
        return None if self.downlink == "fp32" else Chain(self.downlink, packed=self.compress)


def _top_k_of_what(spec: JobSpec) -> list[Fault]:
    if spec.wire.top_k < 1 and spec.wire.uplink == AUTO:
        message = "says how much of an update is sent, but auto chooses that; name the uplink"
        return [Fault("wire.top_k", message)]
    return []


def _top_k_needs_feedback(spec: JobSpec) -> list[Fault]:
    if spec.wire.top_k < 1 and not spec.wire.error_feedback:
        message = "the numbers that top-k leaves out would be lost for good; switch it on"
        return [Fault("wire.error_feedback", message)]
    return []


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (_top_k_of_what, _top_k_needs_feedback)
