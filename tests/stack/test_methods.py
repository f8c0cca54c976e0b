"""Every method as a launched job: three agents, the carried model, two short rounds, all real.

A method is a row of METHODS: its name, what its specification changes, and what must then be true
of the job besides its end. ``same_bits`` asks the simulation for the same global weights. ``make
test`` launches those of SHORT, which share nothing but the way to launch; ``make prove`` all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedcore.spec.options.adapter import LORA_TARGETS
from tests.stack.conftest import EXACT, Running
from tests.stack.simulation import simulated

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@dataclass(frozen=True)
class Done:
    """A job that completed: the running site, its specification, its row, its rounds."""

    running: Running
    spec: dict[str, Any]
    job: dict[str, Any]
    rounds: list[dict[str, Any]]
    folder: Path


Check = Callable[[Done], None]

QUICK: dict[str, Any] = {
    **EXACT,
    "data": {"max_validation_examples": 2, "max_source_tokens": 96, "max_target_tokens": 24},
    "train": {**EXACT["train"], "local_steps": 2, "batch_size": 2},
    "strategy": {"name": "fedavg"},
    "evaluation": {"every": 0, "initial": False},
}


def quick(changes: dict[str, Any]) -> dict[str, Any]:
    """The short job with a row's changes, group by group."""
    spec = dict(QUICK)
    for name, value in changes.items():
        spec[name] = {**spec.get(name, {}), **value} if isinstance(value, dict) else value
    return spec


def same_bits(done: Done) -> None:
    """The simulation of the same specification makes the same global weights."""
    launched = [row["global_artefact"] or row["base_artefact"] for row in done.rounds]
    assert [sha for sha, _ in simulated(done.running, done.spec, done.folder)] == launched


def averaged(within: float) -> Check:
    """Every round tells how far the served adapters are off their mean product: no further."""

    def check(done: Done) -> None:
        errors = [row["fold"]["aggregation_error"] for row in done.rounds[1:]]
        assert all(error is not None and error <= within for error in errors), errors

    return check


def updates_are(*shares: float) -> Check:
    """Bytes of the devices' updates, by slot, in shares of the plain adapter of the served rank."""

    def check(done: Done) -> None:
        rows = done.running.assignments(done.job, task="train", phase="folded")
        sizes = {row["slot"]: row["bytes_up"] for row in rows}
        plain = done.job["model_info"]["payload_bytes"]
        ratios = [sizes[slot] / plain for slot in sorted(sizes)]
        assert ratios == pytest.approx(shares, abs=0.15), ratios

    return check


def planned_within(budget: str) -> Check:
    """Every device was planned once, with less than all it could adapt."""

    def check(done: Done) -> None:
        events = done.running.site.events_after(done.job["id"], 0)
        texts = [event["text"] for event in events if ": planned: " in event["text"]]
        assert len(texts) == 3 and len(set(texts)) == 3, texts
        assert all(f"would need 474.9 MB of {budget}; it adapts " in text for text in texts), texts

    return check


def personal_models(done: Done) -> None:
    """The last evaluation is of both models on every device, and they are not the same."""
    rows = done.running.assignments(done.job, task="evaluate", phase="folded")
    metrics = [row["metrics"] for row in rows]
    assert len(metrics) == 3 and all(one["personal_loss"] != one["loss"] for one in metrics), (
        metrics
    )
    assert "personal_rougeL" in done.rounds[-1]["evaluation"]


def rewarded(done: Done) -> None:
    """Each device reports how training changed its reward; a penalty is never above 0."""
    rows = done.running.assignments(done.job, task="train", phase="folded")
    metrics_by_slot = {
        row["slot"]: row["metrics"] for row in rows if "reward_after" in row["metrics"]
    }
    assert len(metrics_by_slot) == 3
    assert (
        0 <= metrics_by_slot[0]["reward_after"] <= 1 and 0 < metrics_by_slot[1]["reward_after"] <= 1
    )
    assert -1 <= metrics_by_slot[2]["reward_after"] <= 0
    log = [event["text"] for event in done.running.site.events_after(done.job["id"], 0)]
    assert any(", reward " in text for text in log)


EXACT_RULE = averaged(1e-6)
MIXED = {"rank": 4, "ranks": "1,2,4", "alphas": "4,4,16"}

METHODS: tuple[tuple[str, dict[str, Any], tuple[Check, ...]], ...] = (
    ("fedavgm", {"strategy": {"name": "fedavgm"}}, (same_bits,)),
    ("fedprox", {"strategy": {"name": "fedprox", "proximal_mu": 1.0}}, ()),
    ("fedadamw", {"strategy": {"name": "fedadamw", "server_learning_rate": 0.01}}, ()),
    ("fedyogi", {"strategy": {"name": "fedyogi", "server_learning_rate": 0.01}}, ()),
    ("fedadagrad", {"strategy": {"name": "fedadagrad", "server_learning_rate": 0.01}}, ()),
    ("fednova", {"strategy": {"name": "fednova"}}, (same_bits,)),
    ("qfedavg", {"strategy": {"name": "qfedavg", "fairness_q": 2.0}}, (same_bits,)),
    (
        "scaffold",  # three rounds: the last two are corrected
        {
            "strategy": {"name": "scaffold"},
            "train": {"optimizer": "sgd", "learning_rate": 0.1},
            "rounds": 3,
        },
        (same_bits,),
    ),
    ("fedjudge", {"method": {"name": "fedjudge", "restraint": 1.0}}, (same_bits,)),
    ("bottleneck", {"adapter": {"kind": "bottleneck", "width": 8}}, (same_bits,)),
    (
        "pftt",  # each device keeps a LoRA of another size
        {
            "adapter": {"kind": "bottleneck", "width": 8},
            "method": {"name": "pftt", "own_ranks": ["2", "4", "8"]},
        },
        (same_bits, personal_models, updates_are(1.0, 1.0, 1.0)),
    ),
    ("ffa", {"adapter": {"aggregation": "ffa"}}, (EXACT_RULE, updates_are(0.5, 0.5, 0.5))),
    ("fedex", {"adapter": {"aggregation": "fedex"}}, (EXACT_RULE, same_bits)),
    (
        "flexlora",
        {"adapter": {"aggregation": "flexlora", **MIXED}},
        (averaged(0.9), updates_are(0.25, 0.5, 1.0), same_bits),
    ),
    (
        "stack",
        {"adapter": {"aggregation": "stack", **MIXED}},
        (EXACT_RULE, updates_are(0.25, 0.5, 1.0), same_bits),
    ),
    (
        "fedpipe",  # room for some of the matrices, at low ranks, on a base in nf4
        {
            "adapter": {"rank": 8, "aggregation": "flexlora", "targets": list(LORA_TARGETS)},
            "method": {"name": "fedpipe", "memory_budget_mb": 455.5},
            "evaluation": {"every": 0, "initial": True},
        },
        (planned_within("455.5 MB"), same_bits),
    ),
    (
        "pfit",  # the devices in turn want overlap, brevity and no leak
        {
            "adapter": {"kind": "layers", "last_layers": 1},
            "method": {
                "name": "pfit",
                "samples": 2,
                "rewards": "overlap=1,brevity=0,leak=0",
                "weights": "1+0+0,0+1+0,0+0+1",
            },
        },
        (rewarded, same_bits),
    ),
)


# Between them: weights of losses, state that travels both ways, one that stays on the device, ranks
# that differ, a plan for each device, rewards. FedAdam, FedJudge and FlexLoRA have tests of their
# own in test_acceptance.py and test_alone.py.
SHORT = {"qfedavg", "scaffold", "pftt", "stack", "fedpipe", "pfit"}
ROWS = [
    pytest.param(*row, id=row[0], marks=[] if row[0] in SHORT else [pytest.mark.prove])
    for row in METHODS
]


@pytest.mark.parametrize(("name", "changes", "checks"), ROWS)
def test_launched_method_completes(
    running: Running,
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
    checks: tuple[Check, ...],
) -> None:
    spec = {**quick(changes), "name": name}
    job = running.done(running.site.launch(spec))
    rounds = running.rounds(job)
    assert [(row["number"], row["phase"]) for row in rounds] == [
        (number, "closed") for number in range(spec["rounds"] + 1)
    ]
    log = "\n".join(event["text"] for event in running.site.events_after(job["id"], 0))
    assert math.isfinite(rounds[-1]["evaluation"].get("loss", math.nan)), log
    artefacts = [row["global_artefact"] for row in rounds[1:]]
    assert len(set(artefacts)) == len(artefacts), "a round changed nothing"
    for check in checks:
        check(Done(running, spec, job, rounds, tmp_path))
