"""The model and how a device trains it: the groups ``model`` and ``train`` of a specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.families import MemberName
from fedcore.spec.checks import boolean, integer, number, one_of, option, text

PRECISIONS = ("auto", "fp32", "bf16")
SCHEDULES = ("constant", "linear", "cosine")
KERNELS = ("fast", "plain")
BATCHINGS = ("random", "length")
OPTIMIZERS = ("adamw", "sgd")


class BasePrecision(MemberName):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    NF4 = "nf4"


@dataclass(frozen=True)
class BaseFamily:
    """How frozen weights are kept.

    ``quantised``: in fewer bytes than any precision that trains, so the weights cannot train and
    cannot take in small changes. ``follows_training``: in the precision of training.
    """

    base: BasePrecision
    quantised: bool = False
    follows_training: bool = False


BASES: Mapping[BasePrecision, BaseFamily] = {
    row.base: row
    for row in (
        BaseFamily(BasePrecision.AUTO, follows_training=True),
        BaseFamily(BasePrecision.FP32),
        BaseFamily(BasePrecision.BF16),
        BaseFamily(BasePrecision.INT8, quantised=True),
        BaseFamily(BasePrecision.NF4, quantised=True),
    )
}


@dataclass(frozen=True)
class ModelSpec:
    name: str = option(
        "nano",
        text(1, 300),
        "Model",
        "A size from the list, a T5 model name from the Hub, or a folder.",
    )
    base: str = option(
        "auto",
        one_of(*map(str, BasePrecision)),
        "Precision of frozen weights",
        "How frozen weights are stored; auto: as in training; int8 and nf4 save memory.",
        True,
    )

    @property
    def base_family(self) -> BaseFamily:
        """What is true of how frozen weights are kept."""
        return BASES[BasePrecision(self.base)]


@dataclass(frozen=True)
class TrainSpec:
    local_steps: int = option(
        0,
        integer(0, 1_000_000),
        "Local steps per round",
        "Optimizer steps per round; 0: train for the given epochs instead.",
    )
    local_epochs: int = option(
        1, integer(1, 1000), "Local epochs per round", "Passes over a device's examples per round."
    )
    batch_size: int = option(
        8, integer(1, 4096), "Batch size", "Examples per optimizer step, before accumulation."
    )
    accumulation: int = option(
        1,
        integer(1, 1024),
        "Gradient accumulation",
        "Batches whose gradients make one step.",
        advanced=True,
    )
    optimizer: str = option(
        "adamw",
        one_of(*OPTIMIZERS),
        "Optimizer",
        "The optimizer on the devices is reset in every round.",
        True,
    )
    learning_rate: float = option(
        3e-4, number(0, 10, above=True), "Learning rate", "Learning rate of the devices' optimizer."
    )
    schedule: str = option(
        "constant",
        one_of(*SCHEDULES),
        "Schedule within a round",
        "How the learning rate changes within a round.",
        True,
    )
    warmup_steps: int = option(
        0,
        integer(0, 1_000_000),
        "Warm-up steps",
        "Steps at the start of a round in which the learning rate rises.",
        advanced=True,
    )
    weight_decay: float = option(
        0.0, number(0, 1), "Weight decay", "Weight decay of the devices' optimizer.", advanced=True
    )
    clip_norm: float = option(
        1.0,
        number(0, 1e6),
        "Gradient clipping",
        "Maximum norm of a step's gradient; 0: no limit.",
        True,
    )
    precision: str = option(
        "auto",
        one_of(*PRECISIONS),
        "Precision",
        "Precision of training; auto: bf16 where the device is faster in it.",
    )
    dropout: float = option(
        -1.0,
        number(-1, 0.9),
        "Model dropout",
        "Dropout of the base model; -1: the checkpoint's value.",
        True,
    )
    kernels: str = option(
        "fast",
        one_of(*KERNELS),
        "Kernels",
        "Edgewise's own kernels without padding (fast), or those of transformers (plain).",
        True,
    )
    batching: str = option(
        "random",
        one_of(*BATCHINGS),
        "Batching",
        "Batches are random, or hold examples of similar length.",
        True,
    )
    micro_tokens: int = option(
        0,
        integer(0, 1_000_000),
        "Micro-batch, tokens",
        "Maximum tokens per forward pass; 0: no limit.",
        True,
    )
    checkpointing: bool = option(
        False,
        boolean(),
        "Gradient checkpointing",
        "Uses less memory and about a third more time.",
        True,
    )
    micro_batch: int = option(
        0,
        integer(0, 4096),
        "Micro-batch, examples",
        "Examples per forward pass; 0: as many as fit in memory.",
        True,
    )
