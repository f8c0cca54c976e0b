"""Models that grow upwards and teach each other over shared text: the group ``distill``.

Agglomerative federated learning, arXiv 2312.11489 (``method.name`` is ``agglomerative``).
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.spec.checks import integer, number, one_of, option, string_list, text

PARENTS_TRAIN = ("full", "lora")
PACKAGED_BRIDGE = "dialogues"
INSTEAD = "simulate it (`python -m fedcore.simulate --method agglomerative`)"


@dataclass(frozen=True)
class DistillSpec:
    models: tuple[str, ...] = option(
        ("micro",),
        string_list(),
        "Models above the devices",
        "One model per level above the devices, from the bottom up.",
        True,
    )
    children: int = option(
        0,
        integer(0, 10_000),
        "Children per parent",
        "Maximum children of a parent below the root; 0: any number.",
        True,
    )
    bridge: str = option(
        PACKAGED_BRIDGE,
        text(1, 300),
        "Bridge samples",
        "Text all nodes share: dialogues, dialogues:clinic+law, a dataset or a file.",
        True,
    )
    samples: int = option(
        256,
        integer(2, 1_000_000),
        "Max. bridge samples",
        "At most this many bridge samples are used.",
        True,
    )
    gamma: float = option(
        1.0, number(0, 1e4), "Bridge gamma", "Weight of the bridge loss on a device.", True
    )
    beta: float = option(
        1.0,
        number(0, 1e4),
        "Bridge beta",
        "Weight of the teacher's distribution in the bridge loss.",
        True,
    )
    temperature: float = option(
        2.0,
        number(0, 100, above=True),
        "Temperature",
        "Softmax temperature of teacher and student.",
        True,
    )
    top_k: int = option(
        32,
        integer(1, 1_000_000),
        "Tokens sent per distribution",
        "The largest probabilities are sent; the rest is sent as one sum.",
        True,
    )
    parents_train: str = option(
        "full",
        one_of(*PARENTS_TRAIN),
        "Trainable part above the devices",
        "What trains in the models above the devices.",
        True,
    )
    parent_learning_rate: float = option(
        1e-3,
        number(0, 10, above=True),
        "Learning rate above the devices",
        "Learning rate of the models above the devices.",
        True,
    )
    parent_steps: int = option(
        0,
        integer(0, 1_000_000),
        "Steps per round above the devices",
        "Steps per round above the devices; 0: as on a device.",
        True,
    )
