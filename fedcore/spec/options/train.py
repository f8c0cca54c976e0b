"""The model and how a device trains it: the groups ``model`` and ``train`` of a specification."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.spec.checks import boolean, integer, number, one_of, option, text

PRECISIONS = ("auto", "fp32", "bf16")
BASES = ("auto", "fp32", "bf16", "int8", "nf4")
QUANTISED = ("int8", "nf4")
SCHEDULES = ("constant", "linear", "cosine")
KERNELS = ("fast", "plain")
BATCHINGS = ("random", "length")
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class ModelSpec:
    name: str = option(
        "nano",
        text(1, 300),
        "Model",
        "a size from the list, a T5 model name from the Hub, or a folder",
    )
    base: str = option(
        "auto",
        one_of(*BASES),
        "Frozen weights kept as",
        "LoRA only; auto: the precision of training; int8 and nf4 save memory",
        True,
    )


@dataclass(frozen=True)
class TrainSpec:
    local_steps: int = option(
        0, integer(0, 1_000_000), "Local steps a round", "0: count epochs instead"
    )
    local_epochs: int = option(1, integer(1, 1000), "Local epochs a round")
    batch_size: int = option(8, integer(1, 4096), "Batch size")
    accumulation: int = option(1, integer(1, 1024), "Gradient accumulation", advanced=True)
    optimizer: str = option(
        "adamw", one_of(*OPTIMIZERS), "Optimizer", "of the devices; its moments start anew", True
    )
    learning_rate: float = option(3e-4, number(0, 10, above=True), "Learning rate")
    schedule: str = option("constant", one_of(*SCHEDULES), "Schedule within a round", "", True)
    warmup_steps: int = option(0, integer(0, 1_000_000), "Warm-up steps", advanced=True)
    weight_decay: float = option(0.0, number(0, 1), "Weight decay", advanced=True)
    clip_norm: float = option(1.0, number(0, 1e6), "Gradient clipping", "0: none", True)
    precision: str = option(
        "auto", one_of(*PRECISIONS), "Precision", "auto: bf16 where the device is faster in it"
    )
    dropout: float = option(
        -1.0, number(-1, 0.9), "Model dropout", "-1: as the checkpoint says", True
    )
    kernels: str = option(
        "fast",
        one_of(*KERNELS),
        "Kernels",
        "fast: Edgewise's own, without padding; plain: those of transformers",
        True,
    )
    batching: str = option(
        "random",
        one_of(*BATCHINGS),
        "Batches are drawn",
        "length: of examples alike in length",
        True,
    )
    micro_tokens: int = option(
        0, integer(0, 1_000_000), "Tokens at a time", "of a batch, at most; 0: any number", True
    )
    checkpointing: bool = option(
        False, boolean(), "Gradient checkpointing", "less memory, a third more time", True
    )
    micro_batch: int = option(
        0, integer(0, 4096), "Examples at a time", "of a batch; 0: as many as fit the memory", True
    )
