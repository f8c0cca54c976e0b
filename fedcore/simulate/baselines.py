"""``--alone``: the local-only baseline of each device, and its gain from the federation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.simulate.device_scores import personal_scores
from fedcore.simulate.federation import simulate_baseline
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
    """Raise SpecError, before anything runs, if the job has no local-only baseline."""
    if why := refusal(spec):
        raise SpecError([Fault("--alone", why)])


def run_baselines(
    spec: JobSpec,
    devices: Mapping[str, Source],
    workdir: Path,
    results: Sequence[RoundResult],
    allocated: Mapping[str, Tailoring],
) -> dict[str, Any]:
    """Train every device of a finished simulation alone; print and return the gains.

    ``allocated``: FedPipe's overrides of the devices. Weights are written into ``workdir``/alone.
    """
    rows = []
    print(f"\n{ROW.format('alone', *HEAD)}")
    for slot, name in enumerate(sorted(spec.participation.devices or devices)):
        overrides = allocated.get(name) or tailoring(spec, Member(slot, name))
        folder, seat = workdir / "alone" / str(slot), alone_seat(slot, overrides)
        last = simulate_baseline(spec, name, devices[name], seat, folder)[-1]
        row = compared(name, results[-1].evaluations[name], last.evaluations[name])
        rows.append(row)
        models = (row.shared, row.own, row.alone)
        losses = [f"{score.loss:.4f}" if score else "" for score in models]
        scores = [f"{score.rougeL:.2f}" if score else "" for score in models]
        print(ROW.format(name, *losses, *scores, _points(row.gain), _points(row.own_gain)))
        sys.stdout.flush()
    gains = summary(rows)
    for kind, label in KINDS.items():
        if gain := gains[kind]:
            print(
                f"{label} over training alone: ROUGE-L {gain['mean']:+.2f}, loss "
                f"{-gain['mean_loss']:+.4f} in the mean; worst {gain['worst']:+.2f} "
                f"({gain['worst_device']}); {gain['gained']} of {gain['devices']} devices gained"
            )
    return {"devices": [row.to_dict() for row in rows], "summary": gains}


def compared(name: str, federated: Evaluation, alone: Evaluation) -> Compared:
    """A device's last evaluation in the federation and that of its baseline."""
    personal = personal_scores(federated.more)
    return Compared(
        name,
        Score(federated.rougeL, federated.loss),
        Score(personal["rougeL"], personal["loss"]) if personal else None,
        Score(alone.rougeL, alone.loss),
    )


def _points(gain: Gain | None) -> str:
    return f"{gain.rougeL:+.2f}" if gain else ""
