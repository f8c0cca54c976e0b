"""The options that say who takes part in a round, how long it waits, and when it evaluates."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.spec.checks import boolean, integer, names, one_of, option
from fedcore.spec.checks import number as real
from fedcore.spec.staleness import DISCOUNTS, discount

MODES = SYNCHRONOUS, BUFFERED = "synchronous", "buffered"


@dataclass(frozen=True)
class ParticipationSpec:
    mode: str = option(
        SYNCHRONOUS,
        one_of(*MODES),
        "Round mode",
        "In buffered mode devices do not wait for each other.",
    )
    devices: tuple[str, ...] = option(
        (), names(None), "Devices", "Names of the devices; empty: every device with enough data."
    )
    fraction: float = option(
        1.0,
        real(0, 1, above=True),
        "Fraction of devices per round",
        "Fraction of the devices that is sampled in each round.",
    )
    minimum: int = option(
        1,
        integer(1, 1_000_000),
        "Min. devices per round",
        "A round does not start with fewer devices.",
    )
    over_selection: float = option(
        0.0,
        real(0, 1),
        "Over-selection",
        "Fraction of extra devices that a round does not wait for.",
        True,
    )
    quorum: float = option(
        0.5, real(0, 1, above=True), "Quorum", "Fraction of updates that is enough at the deadline."
    )
    deadline_s: float = option(
        1800.0, real(5, 604_800), "Round deadline, s", "A round ends after this time at the latest."
    )
    deadline_quantile: float = option(
        0.0,
        real(0, 1),
        "Deadline quantile",
        "Quantile of the members' latest times; 0: only the deadline above applies.",
        True,
    )
    deadline_slack: float = option(
        1.5, real(1, 100), "Deadline slack", "The quantile is multiplied by this factor.", True
    )
    tiers: int = option(
        1,
        integer(1, 100),
        "Tiers",
        "Devices are grouped by speed into tiers; each round samples one tier.",
        True,
    )
    lease_s: float = option(
        60.0, real(3, 86_400), "Lease, s", "A silent device loses its work after this time.", True
    )
    max_attempts: int = option(
        5,
        integer(1, 100),
        "Attempts per device and round",
        "A device gets the work of a round at most this many times.",
        True,
    )
    buffer_size: int = option(
        4, integer(1, 100_000), "Buffer size", "Updates per model version; 1: FedAsync."
    )
    staleness_discount: str = option(
        "polynomial",
        one_of(*DISCOUNTS),
        "Staleness discount",
        "Reduces the weight of updates from old models.",
    )
    staleness_exponent: float = option(
        0.5,
        real(0, 100),
        "Discount exponent",
        "Exponent of the polynomial discount, or slope of the hinge.",
        True,
    )
    staleness_threshold: int = option(
        4,
        integer(0, 100_000),
        "Discount threshold",
        "Versions that the hinge does not discount.",
        True,
    )
    max_staleness: int = option(
        20,
        integer(0, 100_000),
        "Max. staleness",
        "Maximum age of an update in model versions; older ones are discarded.",
        True,
    )

    @property
    def buffered(self) -> bool:
        return self.mode == BUFFERED

    def discount(self, staleness: int) -> float:
        """The factor on an update that is so many versions old; 1 in synchronous rounds."""
        if not self.buffered:
            return 1.0
        exponent, threshold = self.staleness_exponent, self.staleness_threshold
        return discount(self.staleness_discount, staleness, exponent, threshold)


@dataclass(frozen=True)
class EvaluationSpec:
    every: int = option(
        1,
        integer(0, 10_000),
        "Evaluate every N rounds",
        "The last round is always evaluated; 0: only the last one.",
    )
    initial: bool = option(
        True,
        boolean(),
        "Evaluate before training",
        "Round 0 evaluates the initial model, the baseline of the job.",
        True,
    )

    def due(self, number: int, rounds: int) -> bool:
        """Whether round ``number`` of ``rounds`` evaluates. Round 0 is the one before training."""
        if number == 0:
            return self.initial
        return number >= rounds or (self.every > 0 and number % self.every == 0)

    def share(self, rounds: int) -> float:
        """Share of the rounds 1 to ``rounds`` that evaluate, above 0 to 1."""
        return sum(self.due(number, rounds) for number in range(1, rounds + 1)) / rounds
