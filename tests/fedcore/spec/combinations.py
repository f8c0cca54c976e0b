"""Options that cannot be joined with each other: values, the fault's path, part of its text."""

from __future__ import annotations

from typing import Any

Case = tuple[dict[str, Any], str, str]

COMBINATIONS: list[Case] = [
    ({"train": {"local_steps": 5, "warmup_steps": 6}}, "train.warmup_steps", "5 local steps"),
    ({"train": {"micro_tokens": 575}}, "train.micro_tokens", "longest example (576 tokens)"),
    ({"adapter": {"kind": "full"}, "model": {"base": "int8"}}, "model.base", "none is"),
    (
        {"participation": {"devices": ["a", "b"], "minimum": 3}},
        "participation.minimum",
        "than the 2 named",
    ),
    ({"participation": {"deadline_s": 30}}, "participation.lease_s", "deadline of 30 s"),
    (
        {"participation": {"deadline_quantile": 0.4}},
        "participation.deadline_quantile",
        "the quorum of 0.5",
    ),
    ({"participation": {"tiers": 3, "fraction": 0.5}}, "participation.tiers", "at most 0.333"),
    (
        {"participation": {"mode": "buffered", "quorum": 0.9}},
        "participation.quorum",
        "for synchronous rounds; a buffer waits for nobody. Leave it at 0.5",
    ),
    (
        {"participation": {"mode": "buffered", "over_selection": 0.1}},
        "participation.over_selection",
        "Leave it at 0",
    ),
    (
        {"participation": {"mode": "buffered", "deadline_quantile": 0.9}},
        "participation.deadline_quantile",
        "Leave it at 0",
    ),
    ({"participation": {"mode": "buffered", "tiers": 2}}, "participation.tiers", "Leave it at 1"),
    (
        {"participation": {"mode": "buffered", "devices": ["a", "b"], "buffer_size": 3}},
        "participation.buffer_size",
        "more than the 2 devices named",
    ),
]


# What only some rules of averaging, strategies or methods can be joined with.
METHOD_COMBINATIONS: list[Case] = [
    (
        {"tree": {"parents": ["a=b"]}, "strategy": {"fold": "median"}},
        "strategy.fold",
        "every update",
    ),
    (
        {"tree": {"parents": ["a=b"]}, "strategy": {"name": "qfedavg"}},
        "strategy.name",
        "tree hides",
    ),
    (
        {"tree": {"parents": ["a=b"]}, "adapter": {"aggregation": "stack"}},
        "adapter.aggregation",
        "ffa",
    ),
    (
        {"tree": {"parents": ["a=b"]}, "method": {"name": "fedjudge"}},
        "method.name",
        "without a tree",
    ),
    ({"tree": {"parents": ["a=b", "b=a"]}}, "tree.parents", "is a cycle"),
    ({"adapter": {"ranks": [4, 8]}}, "adapter.ranks", "take flexlora or stack"),
    ({"adapter": {"alphas": [4, 8], "aggregation": "ffa"}}, "adapter.alphas", "under ffa"),
    ({"adapter": {"modules": ["q"], "aggregation": "fedex"}}, "adapter.modules", "under fedex"),
    ({"adapter": {"kind": "full", "aggregation": "ffa"}}, "adapter.aggregation", "is 'full'"),
    ({"adapter": {"ranks": [9], "aggregation": "stack"}}, "adapter.ranks", "raise that"),
    ({"adapter": {"ranks": [0], "aggregation": "stack"}}, "adapter.ranks", "from 1 on"),
    ({"adapter": {"alphas": ["a=b"], "aggregation": "stack"}}, "adapter.alphas", "above 0"),
    ({"adapter": {"modules": ["o"], "aggregation": "stack"}}, "adapter.modules", "are served"),
    ({"adapter": {"modules": ["x"], "aggregation": "stack"}}, "adapter.modules", "unknown x"),
    ({"adapter": {"pattern": ["q"]}}, "adapter.pattern", "give MATRIX=RANK"),
    (
        {"adapter": {"pattern": ["encoder.block.99.layer.0.SelfAttention.q=4"]}},
        "adapter.pattern",
        "nano has no matrix 'encoder.block.99.layer.0.SelfAttention.q'; did you mean encoder.block",
    ),
    ({"adapter": {"pattern": ["zz=4"]}}, "adapter.pattern", "they are called like encoder.block.0"),
    ({"adapter": {"rank": 193}}, "adapter.rank", "smallest side of the matrices it adapts (192)"),
    (
        {"adapter": {"aggregation": "fedex"}, "model": {"base": "nf4"}},
        "model.base",
        "folds into the base",
    ),
    (
        {"adapter": {"aggregation": "flexlora"}, "participation": {"mode": "buffered"}},
        "participation.mode",
        "from one model",
    ),
    (
        {"adapter": {"aggregation": "stack"}, "wire": {"downlink": "int8"}},
        "wire.downlink",
        "no step from",
    ),
    (
        {"adapter": {"aggregation": "fedex"}, "strategy": {"fold": "median"}},
        "strategy.fold",
        "averages products",
    ),
    (
        {"adapter": {"aggregation": "flexlora"}, "strategy": {"name": "fedadam"}},
        "strategy.name",
        "new coordinates each round",
    ),
    ({"strategy": {"name": "fednova", "fold": "median"}}, "strategy.fold", "take mean"),
    (
        {"strategy": {"name": "scaffold"}, "train": {"local_steps": 4}},
        "train.optimizer",
        "must be sgd",
    ),
    (
        {
            "strategy": {"name": "scaffold"},
            "train": {"optimizer": "sgd", "local_steps": 4},
            "participation": {"mode": "buffered"},
        },
        "participation.mode",
        "must be synchronous",
    ),
]


def _stranger(path: str, value: Any, method: str) -> Case:
    group, name = path.split(".")
    return {group: {name: value}}, path, f"is only for the method {method}"


# Options of one method beside none: each would be left unread.
STRANGERS: list[Case] = [
    _stranger("method.restraint", 0, "fedjudge"),
    _stranger("method.own_rank", 4, "pftt"),
    _stranger("method.own_ranks", ["4"], "pftt"),
    _stranger("method.own_targets", ["q"], "pftt"),
    _stranger("method.own_scale", 1, "pftt"),
    _stranger("method.memory_budget_mb", 900, "fedpipe"),
    _stranger("method.time_budget_s", 60, "fedpipe"),
    _stranger("method.rewards", ["kindness=1"], "pfit"),
    _stranger("method.weights", ["1+1"], "pfit"),
    _stranger("method.samples", 1, "pfit"),
    _stranger("method.temperature", 2, "pfit"),
    _stranger("method.passes", 1, "pfit"),
    _stranger("method.clip", 0.1, "pfit"),
    _stranger("method.anchor", 0, "pfit"),
    _stranger("method.baseline", "group", "pfit"),
    _stranger("method.distance", 1, "pfit"),
    _stranger("method.window", 4, "pfit"),
    _stranger("method.supervised_steps", 2, "pfit"),
    _stranger("distill.models", ["a/b"], "agglomerative"),
    _stranger("distill.children", 2, "agglomerative"),
    _stranger("distill.bridge", "notes", "agglomerative"),
    _stranger("distill.samples", 16, "agglomerative"),
    _stranger("distill.gamma", 0, "agglomerative"),
    _stranger("distill.beta", 0, "agglomerative"),
    _stranger("distill.temperature", 1, "agglomerative"),
    _stranger("distill.top_k", 8, "agglomerative"),
    _stranger("distill.parents_train", "lora", "agglomerative"),
    _stranger("distill.parent_learning_rate", 0.1, "agglomerative"),
    _stranger("distill.parent_steps", 3, "agglomerative"),
]
