"""What a job does beyond training and averaging: the group ``method`` of a specification.

A method is one row of ``METHODS``; its options say in their help which method they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

from fedcore import spec_fedpipe, spec_pfit, spec_pftt
from fedcore.errors import Fault
from fedcore.spec_adapter import LORA_TARGETS
from fedcore.spec_checks import names, one_of, option, real, texts, whole
from fedcore.spec_distill import AGGLOMERATIVE, DistillSpec
from fedcore.spec_fedpipe import NAME as FEDPIPE
from fedcore.spec_pfit import BASELINES, PFIT
from fedcore.spec_pftt import MOST_RANK, PFTT

if TYPE_CHECKING:
    from fedcore.spec import JobSpec

FEDJUDGE = "fedjudge"
METHODS = ("none", FEDJUDGE, PFTT, AGGLOMERATIVE, FEDPIPE, PFIT)


@dataclass(frozen=True)
class MethodSpec:
    name: str = option("none", one_of(*METHODS), "Method", "none: plain federated training")
    restraint: float = option(
        0.5,
        real(0, 1e4),
        "Restraint",
        "FedJudge: how strongly weights that matter to all are held; 0: not at all",
        True,
    )
    own_rank: int = option(8, whole(1, MOST_RANK), "Own LoRA rank", "PFTT", True)
    own_ranks: tuple[str, ...] = option(
        (),
        texts(),
        "Own LoRA ranks of the devices",
        "PFTT: in turn (4,8,16), by name or machine (pi=4); empty: all alike",
        True,
    )
    own_targets: tuple[str, ...] = option(
        ("q", "v"), names(LORA_TARGETS), "Own LoRA targets", "PFTT", True
    )
    own_scale: float = option(
        2.0, real(0, 1e4, above=True), "Own LoRA scale", "PFTT: alpha over rank, of any rank", True
    )
    memory_budget_mb: float = option(
        0.0,
        real(0, 1e9),
        "Memory budget, MB",
        "FedPipe: a device plans with no more; 0: what it has",
        True,
    )
    time_budget_s: float = option(
        0.0,
        real(0, 1e8),
        "Time budget, s",
        "FedPipe: of local training in a round; 0: none",
        True,
    )
    rewards: tuple[str, ...] = option(
        ("overlap=1",),
        texts(),
        "Rewards",
        "PFIT: NAME=WEIGHT of overlap, brevity:SHARE, leak, classifier:MODEL@LABEL",
        True,
    )
    weights: tuple[str, ...] = option(
        (),
        texts(),
        "Weights of the devices",
        "PFIT: of the rewards in order, joined by +; in turn (1+0,0+1) or by name (pi=1+0)",
        True,
    )
    samples: int = option(4, whole(1, 64), "Samples of a prompt", "PFIT", True)
    temperature: float = option(1.0, real(0, 10, above=True), "Temperature", "PFIT", True)
    passes: int = option(2, whole(1, 100), "Steps for the same samples", "PFIT", True)
    clip: float = option(0.2, real(0, 1, above=True), "Clipped ratio", "PFIT: of PPO", True)
    anchor: float = option(
        0.05, real(0, 1e4), "KL anchor", "PFIT: how strongly the received model holds", True
    )
    baseline: str = option(
        "value",
        one_of(*BASELINES),
        "Baseline",
        "PFIT: value: the device's mean reward so far; group: that of a prompt's samples",
        True,
    )
    distance: float = option(
        0.0, real(0, 1e6), "Distance penalty", "PFIT: times the squared distance moved", True
    )
    window: int = option(
        0, whole(0, 8192), "Attention window", "PFIT: of the encoder, tokens a side; 0: all", True
    )
    supervised_steps: int = option(
        0, whole(0, 1_000_000), "Supervised steps", "PFIT: of a round, before its rewards", True
    )


# The method that alone reads an option; beside any other the option would do nothing.
OF_METHOD: dict[str, str] = {
    "method.restraint": FEDJUDGE,
    "method.own_rank": PFTT,
    "method.own_ranks": PFTT,
    "method.own_targets": PFTT,
    "method.own_scale": PFTT,
    "method.memory_budget_mb": FEDPIPE,
    "method.time_budget_s": FEDPIPE,
    **{f"method.{name}": PFIT for name in spec_pfit.OPTIONS},
    **{f"distill.{item.name}": AGGLOMERATIVE for item in fields(DistillSpec)},
}


def _of_another_method(spec: JobSpec) -> list[Fault]:
    """Options that somebody set, though the job's method does not read them."""
    plain, name = type(spec)(), spec.method.name
    others = [path for path, owner in OF_METHOD.items() if owner != name]
    wrong = [path for path in others if attrgetter(path)(spec) != attrgetter(path)(plain)]
    message = "is only for the method {}, but this job's is {}; leave one out or change the other"
    return [Fault(path, message.format(OF_METHOD[path], name)) for path in wrong]


RULES: tuple[Callable[[JobSpec], list[Fault]], ...] = (
    _of_another_method,
    spec_fedpipe.faults,
    *spec_pfit.RULES,
    *spec_pftt.RULES,
)
