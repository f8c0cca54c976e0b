"""How updates and models travel: the group ``wire`` of a job specification."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.formats.codec_chain import VALUES, Chain
from fedcore.spec.checks import boolean, number, one_of, option

AUTO = "auto"
DOWNLINKS = tuple(name for name in VALUES if name != "fp16")


@dataclass(frozen=True)
class WireSpec:
    uplink: str = option(
        AUTO,
        one_of(AUTO, *VALUES),
        "Upload codec",
        "Codec of updates; auto: fp32, and fewer bytes on a slow link.",
    )
    top_k: float = option(
        1.0,
        number(0, 1, above=True),
        "Fraction of an update sent",
        "Only the largest values are sent; 1: all.",
        True,
    )
    error_feedback: bool = option(
        True, boolean(), "Error feedback", "Adds the compression error to the next update.", True
    )
    compress: bool = option(
        False,
        boolean(),
        "Lossless compression",
        "Frames are compressed with zstd after the codec.",
        True,
    )
    downlink: str = option(
        "fp32",
        one_of(*DOWNLINKS),
        "Download codec",
        "Codecs other than fp32 send the difference to the previous model.",
        True,
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
