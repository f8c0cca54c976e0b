"""Which process is killed in which state of a round, drawn by seed; nothing here touches a process.

Every state meets every target once before any pair comes again, and the first kills already see
every state.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedcore.rounds.types import RoundPhase

# "planned" is all the time a job has no open round: before its first one, and between two.
MOMENTS = (
    RoundPhase.PLANNED,
    RoundPhase.BROADCASTING,
    RoundPhase.COLLECTING,
    RoundPhase.AGGREGATING,
    RoundPhase.EVALUATING,
)
# A kill comes up to so many seconds after its state was first seen; the short states last less.
LONGEST_WAIT_S = {
    RoundPhase.PLANNED: 0.02,
    RoundPhase.BROADCASTING: 0.02,
    RoundPhase.COLLECTING: 0.6,
    RoundPhase.AGGREGATING: 0.05,
    RoundPhase.EVALUATING: 0.6,
}
DOWN_S = (0.1, 2.0)  # until the killed process is started again
STRIKES_A_VISIT = 2  # in one state of one round


@dataclass(frozen=True)
class Strike:
    """Kill ``target``, ``wait_s`` after a round reached ``moment``; start it again ``down_s`` on.

    ``pick`` from [0, 1) chooses among several devices.
    """

    moment: RoundPhase
    target: str
    wait_s: float
    down_s: float
    pick: float


def draw(seed: int, kills: int, targets: Sequence[str]) -> list[Strike]:
    """``kills`` strikes; the same seed gives the same ones."""
    rng = random.Random(seed)
    strikes: list[Strike] = []
    while True:
        queues = {moment: rng.sample(targets, len(targets)) for moment in MOMENTS}
        for turn in range(len(targets)):
            for moment in rng.sample(MOMENTS, len(MOMENTS)):
                if len(strikes) == kills:
                    return strikes
                wait_s = rng.uniform(0.0, LONGEST_WAIT_S[moment])
                down_s = rng.uniform(*DOWN_S)
                strikes.append(Strike(moment, queues[moment][turn], wait_s, down_s, rng.random()))


@dataclass
class Schedule:
    """The remaining strikes. Jobs take them as they reach their moments."""

    strikes: list[Strike]
    _visits: dict[object, int] = field(default_factory=dict)

    def take(self, visit: object, moment: RoundPhase) -> Strike | None:
        """The next strike for a state. ``visit`` identifies the state of one round of one job."""
        strike = next((item for item in self.strikes if item.moment is moment), None)
        if strike is None or self._visits.get(visit, 0) >= STRIKES_A_VISIT:
            return None
        self._visits[visit] = self._visits.get(visit, 0) + 1
        self.strikes.remove(strike)
        return strike

    def put_back(self, strike: Strike) -> None:
        """Return a strike whose moment passed, with half its delay.

        The duration of a state depends on the machine. On a fast one, a long delay would always
        miss it.
        """
        self.strikes.append(replace(strike, wait_s=strike.wait_s / 2))
