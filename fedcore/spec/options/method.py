"""What a job does beyond training and averaging: the group ``method`` of a specification.

``MethodKind`` is the family of methods. ``METHODS`` says of each what a specification, a form, the
planner and the server need to know; its rules are in ``fedcore.spec.rules.methods``, its training
in ``fedcore.methods``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fedcore.families import MemberName
from fedcore.spec.checks import integer, names, number, one_of, option, string_list
from fedcore.spec.options.adapter import KIND_PATH, LORA_TARGETS, AdapterKind
from fedcore.spec.options.distill import DistillSpec
from fedcore.spec.options.lowrank import LowRankRule

MOST_RANK = 1024
BASELINES = ("value", "group")
FEDPIPE_SCORES = "sensitivity"  # the key of the matrices' scores in an evaluation's metrics
METHOD_PATH = "method.name"  # as errors and forms name the option


class MethodKind(MemberName):
    NONE = "none"
    FEDJUDGE = "fedjudge"
    PFTT = "pftt"
    AGGLOMERATIVE = "agglomerative"
    FEDPIPE = "fedpipe"
    PFIT = "pfit"


class Exchange(MemberName):
    """What devices send: the change of their weights, or their logits on shared text."""

    UPDATES = "updates"
    LOGITS = "logits"


class LocalTraining(MemberName):
    """What devices learn from: reference summaries, or rewards of their own samples."""

    REFERENCES = "references"
    REWARDS = "rewards"


@dataclass(frozen=True)
class MethodFamily:
    """What is true of one method.

    ``options``: those that no other method reads. ``has_personal_lora``: each device trains a LoRA
    that never leaves it. ``plans_each_device``: devices score their matrices before round 1, and
    each gets its own plan. ``averages_in_trees``: a mean of clusters' means is as good as the mean.
    ``needs``: options without which it cannot run, and their values. ``no_baseline``: why its
    devices cannot be compared with training alone; '' where they can.
    """

    kind: MethodKind
    label: str
    note: str
    options: tuple[str, ...] = ()
    exchange: Exchange = Exchange.UPDATES
    training: LocalTraining = LocalTraining.REFERENCES
    has_personal_lora: bool = False
    plans_each_device: bool = False
    averages_in_trees: bool = False
    needs: Mapping[str, Any] = field(default_factory=dict)
    no_baseline: str = ""

    @property
    def keeps_weights_on_device(self) -> bool:
        """Whether each device has a model of its own and no weights are averaged."""
        return self.exchange is Exchange.LOGITS

    @property
    def has_rewards(self) -> bool:
        """Whether devices learn from rewards."""
        return self.training is LocalTraining.REWARDS


METHODS: Mapping[MethodKind, MethodFamily] = {
    row.kind: row
    for row in (
        MethodFamily(
            MethodKind.NONE,
            "No method",
            "Plain federated training. Start here.",
            averages_in_trees=True,
        ),
        MethodFamily(
            MethodKind.FEDJUDGE,
            "FedJudge",
            "Protects shared knowledge while each device learns its own data.",
            options=("method.restraint",),
        ),
        MethodFamily(
            MethodKind.PFTT,
            "PFTT",
            "Shares bottleneck adapters; each device keeps a personal LoRA.",
            options=tuple(
                f"method.{name}" for name in ("own_rank", "own_ranks", "own_targets", "own_scale")
            ),
            has_personal_lora=True,
            needs={KIND_PATH: str(AdapterKind.BOTTLENECK)},
        ),
        MethodFamily(
            MethodKind.FEDPIPE,
            "FedPipe",
            "Plans matrices, ranks and base for each device; FlexLoRA averages them.",
            options=("method.memory_budget_mb", "method.time_budget_s"),
            plans_each_device=True,
            needs={
                "adapter.aggregation": str(LowRankRule.FLEXLORA),
                "adapter.targets": LORA_TARGETS,
            },
        ),
        MethodFamily(
            MethodKind.PFIT,
            "PFIT",
            "Each device learns from its own rewards; LoRA or last layers.",
            options=tuple(
                f"method.{name}"
                for name in (
                    *("rewards", "weights", "samples", "temperature", "passes", "clip", "anchor"),
                    *("baseline", "distance", "window", "supervised_steps"),
                )
            ),
            training=LocalTraining.REWARDS,
        ),
        MethodFamily(
            MethodKind.AGGLOMERATIVE,
            "Agglomerative",
            "Larger models above smaller ones exchange knowledge over shared text.",
            options=tuple(f"distill.{item.name}" for item in fields(DistillSpec)),
            exchange=Exchange.LOGITS,
            no_baseline=(
                "agglomerative devices learn from the larger models above them: alone there is "
                "nobody to listen to, and nothing the same is left to compare"
            ),
        ),
    )
}
# The method that alone reads an option; beside any other the option would do nothing.
OF_METHOD: Mapping[str, str] = {
    path: str(kind) for kind, row in METHODS.items() for path in row.options
}


def stored_method(spec: Mapping[str, Any]) -> MethodFamily:
    """The method of a specification in plain JSON values, as the database holds it.

    A method that this version does not know counts as none, so that the job's page still opens.
    """
    name = spec.get("method", {}).get("name")
    return METHODS.get(name, METHODS[MethodKind.NONE])


@dataclass(frozen=True)
class MethodSpec:
    name: str = option(
        "none",
        one_of(*map(str, MethodKind)),
        "Method",
        "What the job does beyond training and averaging; none: plain federated training.",
    )
    restraint: float = option(
        0.5,
        number(0, 1e4),
        "Restraint",
        "Strength of the protection of shared knowledge; 0: none.",
        True,
    )
    own_rank: int = option(
        8,
        integer(1, MOST_RANK),
        "Personal LoRA rank",
        "Rank of the LoRA that stays on the device.",
        True,
    )
    own_ranks: tuple[str, ...] = option(
        (),
        string_list(),
        "Personal LoRA ranks per device",
        "In turn (4,8,16), by name or machine (pi=4); empty: all are equal.",
        True,
    )
    own_targets: tuple[str, ...] = option(
        ("q", "v"),
        names(LORA_TARGETS),
        "Personal LoRA targets",
        "Matrices that get a personal LoRA.",
        True,
    )
    own_scale: float = option(
        2.0,
        number(0, 1e4, above=True),
        "Personal LoRA scale",
        "Alpha divided by rank of the personal LoRA, at any rank.",
        True,
    )
    memory_budget_mb: float = option(
        0.0,
        number(0, 1e9),
        "Memory budget, MB",
        "Limit for each device's plan; 0: the device's own memory.",
        True,
    )
    time_budget_s: float = option(
        0.0,
        number(0, 1e8),
        "Time budget, s",
        "Time that a device's local training may take per round; 0: no limit.",
        True,
    )
    rewards: tuple[str, ...] = option(
        ("overlap=1",),
        string_list(),
        "Rewards",
        "Given as NAME=WEIGHT of overlap, brevity:SHARE, leak, classifier:MODEL@LABEL.",
        True,
    )
    weights: tuple[str, ...] = option(
        (),
        string_list(),
        "Reward weights per device",
        "Weights of the rewards in order, joined by +; in turn (1+0,0+1) or by name (pi=1+0).",
        True,
    )
    samples: int = option(
        4, integer(1, 64), "Samples per prompt", "Summaries sampled for each prompt.", True
    )
    temperature: float = option(
        1.0,
        number(0, 10, above=True),
        "Temperature",
        "Temperature at which summaries are sampled.",
        True,
    )
    passes: int = option(
        2, integer(1, 100), "PPO epochs", "Optimizer steps that reuse the same samples.", True
    )
    clip: float = option(
        0.2,
        number(0, 1, above=True),
        "Clip range",
        "PPO clips the probability ratio to 1 plus or minus this value.",
        True,
    )
    anchor: float = option(
        0.05,
        number(0, 1e4),
        "KL anchor",
        "Strength of the KL penalty towards the received model.",
        True,
    )
    baseline: str = option(
        "value",
        one_of(*BASELINES),
        "Baseline",
        "The device's mean reward so far (value), or that of a prompt's samples (group).",
        True,
    )
    distance: float = option(
        0.0,
        number(0, 1e6),
        "Distance penalty",
        "Weight of the squared distance from the received weights.",
        True,
    )
    window: int = option(
        0,
        integer(0, 8192),
        "Attention window",
        "Tokens on each side that the encoder attends to; 0: all.",
        True,
    )
    supervised_steps: int = option(
        0,
        integer(0, 1_000_000),
        "Supervised steps",
        "Steps on references in each round before those on rewards.",
        True,
    )

    @property
    def family(self) -> MethodFamily:
        """What is true of the method."""
        return METHODS[MethodKind(self.name)]

    def scores_matrices(self, round_number: int) -> bool:
        """Whether devices score their matrices when they evaluate the model of that round."""
        return self.family.plans_each_device and round_number == 0
