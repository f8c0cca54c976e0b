"""What a job does beyond training and averaging: the group ``method`` of a specification.

A method is one row of ``METHODS``; its options say in their help which method they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from fedcore.spec.checks import integer, names, number, one_of, option, string_list
from fedcore.spec.options.adapter import LORA_TARGETS
from fedcore.spec.options.distill import AGGLOMERATIVE, DistillSpec

PFTT = "pftt"
MOST_RANK = 1024


PFIT = "pfit"
BASELINES = ("value", "group")
PFIT_OPTIONS = (
    "rewards", "weights", "samples", "temperature", "passes", "clip", "anchor", "baseline",
    "distance", "window", "supervised_steps",
)  # fmt: skip


FEDPIPE = "fedpipe"
FEDPIPE_SCORES = "sensitivity"  # what a report of the first evaluation calls its scores


FEDJUDGE = "fedjudge"
METHODS = ("none", FEDJUDGE, PFTT, AGGLOMERATIVE, FEDPIPE, PFIT)


@dataclass(frozen=True)
class MethodSpec:
    name: str = option("none", one_of(*METHODS), "Method", "none: plain federated training")
    restraint: float = option(
        0.5,
        number(0, 1e4),
        "Restraint",
        "FedJudge: how strongly weights that matter to all are held; 0: not at all",
        True,
    )
    own_rank: int = option(8, integer(1, MOST_RANK), "Own LoRA rank", "PFTT", True)
    own_ranks: tuple[str, ...] = option(
        (),
        string_list(),
        "Own LoRA ranks of the devices",
        "PFTT: in turn (4,8,16), by name or machine (pi=4); empty: all alike",
        True,
    )
    own_targets: tuple[str, ...] = option(
        ("q", "v"), names(LORA_TARGETS), "Own LoRA targets", "PFTT", True
    )
    own_scale: float = option(
        2.0,
        number(0, 1e4, above=True),
        "Own LoRA scale",
        "PFTT: alpha over rank, of any rank",
        True,
    )
    memory_budget_mb: float = option(
        0.0,
        number(0, 1e9),
        "Memory budget, MB",
        "FedPipe: a device plans with no more; 0: what it has",
        True,
    )
    time_budget_s: float = option(
        0.0,
        number(0, 1e8),
        "Time budget, s",
        "FedPipe: of local training in a round; 0: none",
        True,
    )
    rewards: tuple[str, ...] = option(
        ("overlap=1",),
        string_list(),
        "Rewards",
        "PFIT: NAME=WEIGHT of overlap, brevity:SHARE, leak, classifier:MODEL@LABEL",
        True,
    )
    weights: tuple[str, ...] = option(
        (),
        string_list(),
        "Weights of the devices",
        "PFIT: of the rewards in order, joined by +; in turn (1+0,0+1) or by name (pi=1+0)",
        True,
    )
    samples: int = option(4, integer(1, 64), "Samples of a prompt", "PFIT", True)
    temperature: float = option(1.0, number(0, 10, above=True), "Temperature", "PFIT", True)
    passes: int = option(2, integer(1, 100), "Steps for the same samples", "PFIT", True)
    clip: float = option(0.2, number(0, 1, above=True), "Clipped ratio", "PFIT: of PPO", True)
    anchor: float = option(
        0.05, number(0, 1e4), "KL anchor", "PFIT: how strongly the received model holds", True
    )
    baseline: str = option(
        "value",
        one_of(*BASELINES),
        "Baseline",
        "PFIT: value: the device's mean reward so far; group: that of a prompt's samples",
        True,
    )
    distance: float = option(
        0.0, number(0, 1e6), "Distance penalty", "PFIT: times the squared distance moved", True
    )
    window: int = option(
        0, integer(0, 8192), "Attention window", "PFIT: of the encoder, tokens a side; 0: all", True
    )
    supervised_steps: int = option(
        0, integer(0, 1_000_000), "Supervised steps", "PFIT: of a round, before its rewards", True
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
    **{f"method.{name}": PFIT for name in PFIT_OPTIONS},
    **{f"distill.{item.name}": AGGLOMERATIVE for item in fields(DistillSpec)},
}
