"""``--alone``: after a simulation each device by itself, and what it gained by the others."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.simulate.device_scores import own_scores
from fedcore.simulate.federation import simulate_alone
from fedcore.simulate.results import RoundResult
from fedcore.spec.job import JobSpec
from fedcore.spec.local_baseline import Compared, Gain, Score, alone_seat, refusal, summary
from fedcore.spec.overrides import Member, Tailoring, tailoring
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation

ROW = "{:24.24} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}"
HEAD = ("loss", "own", "alone", "ROUGE-L", "own", "alone", "gain", "own gain")
KINDS = {"shared": "shared model", "own": "own models"}


def refuse(spec: JobSpec) -> None:
    """Raise SpecError, before anything runs, where devices cannot be compared so."""
    if why := refusal(spec):
        raise SpecError([Fault("--alone", why)])


def run_alone(
    spec: JobSpec,
    devices: Mapping[str, Source],
    workdir: Path,
    results: Sequence[RoundResult],
    planned: Mapping[str, Tailoring],
) -> dict[str, Any]:
    """Train every device of a finished simulation by itself; print what it gained; return it.

    ``planned``: what FedPipe had devices train. A device's weights stay in ``workdir``/alone.
    """
    rows = []
    print(f"\n{ROW.format('alone', *HEAD)}")
    for slot, name in enumerate(sorted(spec.participation.devices or devices)):
        changes = planned.get(name) or tailoring(spec, Member(slot, name))
        folder, seat = workdir / "alone" / str(slot), alone_seat(slot, changes)
        last = simulate_alone(spec, name, devices[name], seat, folder)[-1]
        rows.append(compared(name, results[-1].evaluations[name], last.evaluations[name]))
        _print(rows[-1])
    found = summary(rows)
    for kind, words in KINDS.items():
        if found[kind]:
            print(f"{words} over training alone: {_sentence(found[kind])}")
    return {"devices": [row.to_dict() for row in rows], "summary": found}


def compared(name: str, found: Evaluation, alone: Evaluation) -> Compared:
    """A device's last evaluation in the federation beside that of the model it trained alone."""
    own = own_scores(found.more)
    return Compared(
        name,
        Score(found.rougeL, found.loss),
        Score(own["rougeL"], own["loss"]) if own else None,
        Score(alone.rougeL, alone.loss),
    )


def _print(row: Compared) -> None:
    models = (row.shared, row.own, row.alone)
    losses = [f"{score.loss:.4f}" if score else "" for score in models]
    scores = [f"{score.rougeL:.2f}" if score else "" for score in models]
    print(ROW.format(row.device, *losses, *scores, _points(row.gain), _points(row.own_gain)))
    sys.stdout.flush()


def _points(gain: Gain | None) -> str:
    return f"{gain.rougeL:+.2f}" if gain else ""


def _sentence(found: Mapping[str, Any]) -> str:
    return (
        f"ROUGE-L {found['mean']:+.2f}, loss {-found['mean_loss']:+.4f} in the mean; worst "
        f"{found['worst']:+.2f} ({found['worst_device']}); {found['gained']} of "
        f"{found['devices']} devices gained"
    )
