"""Layout of the new-job form: sections, order, cards, and options that depend on others."""

from __future__ import annotations

from fedcore.spec.options.adapter import ADAPTERS, KIND_PATH
from fedcore.spec.options.lowrank import LOW_RANK_RULES
from fedcore.spec.options.method import METHOD_PATH, METHODS, OF_METHOD
from fedcore.spec.options.strategy import STRATEGIES

# Options that differ by device, and the rules that average adapters of unlike ranks.
PER_DEVICE = ("ranks", "alphas", "modules")
REFACTORING = tuple(str(name) for name, row in LOW_RANK_RULES.items() if row.refactors)

# Section of each option; the longest matching prefix wins.
SECTIONS: dict[str, tuple[str, str]] = {
    "learn": ("Model and data", "The base model, and the data it is fine-tuned on."),
    "who": ("Participants", "Select none to use every device with enough data."),
    "how": ("Training", "Aggregation on the server, and training on each device."),
    "travel": ("Compression", "Sends fewer bytes over slow links, at a known loss of precision."),
    "limits": ("Limits", "Length of the job, evaluation, and how long a round waits."),
}
PLACES = {
    "name": "learn",
    "model": "learn",
    "data": "learn",
    "participation": "who",
    "participation.quorum": "limits",
    "participation.deadline_s": "limits",
    "participation.deadline_quantile": "limits",
    "participation.deadline_slack": "limits",
    "participation.lease_s": "limits",
    "participation.max_attempts": "limits",
    "participation.mode": "how",
    "participation.buffer_size": "how",
    "participation.max_staleness": "how",
    "participation.staleness_discount": "how",
    "participation.staleness_exponent": "how",
    "participation.staleness_threshold": "how",
    "strategy": "how",
    "method": "how",
    "adapter": "how",
    "train": "how",
    "tree": "who",
    "distill": "how",
    "wire": "travel",
}
ELSEWHERE = "limits"
# Shown first in their section, in this order and outside the advanced part; a choice comes before
# the options that depend on it. Other options follow in the order of declaration.
FIRST = (
    *("name", "rounds"),
    *(KIND_PATH, "adapter.width", "adapter.last_layers", "adapter.rank", "adapter.alpha"),
    *("adapter.aggregation", "adapter.ranks"),
    *("strategy.name", "strategy.proximal_mu", "strategy.fairness_q"),
    "strategy.server_learning_rate",
    *(METHOD_PATH, "method.restraint", "method.own_rank", "method.own_ranks"),
    *("method.memory_budget_mb", "method.time_budget_s"),
    *("method.rewards", "method.weights", "method.samples"),
)

# Options shown as cards: label and note of each choice.
CARDS: dict[str, dict[str, tuple[str, str]]] = {
    "strategy.name": {str(name): (row.label, row.note) for name, row in STRATEGIES.items()},
    "adapter.aggregation": {
        str(name): (row.label, row.note) for name, row in LOW_RANK_RULES.items()
    },
    METHOD_PATH: {str(name): (row.label, row.note) for name, row in METHODS.items()},
    "participation.mode": {
        "synchronous": ("Synchronous", "Each round waits for its devices."),
        "buffered": (
            "Asynchronous",
            "A few updates make the next model; slow devices deliver later.",
        ),
    },
    KIND_PATH: {str(name): (row.label, row.note) for name, row in ADAPTERS.items()},
}
# Cards shown at once, where there are many; the others are behind a fold.
USUAL = {"strategy.name": tuple(str(kind) for kind, row in STRATEGIES.items() if row.usual)}
STRATEGY_OPTIONS = {
    f"strategy.{name}": (
        "strategy.name",
        *(str(kind) for kind, row in STRATEGIES.items() if name in row.options),
    )
    for name in dict.fromkeys(name for row in STRATEGIES.values() for name in row.options)
}
# Options that apply only while another option has one of the values after it.
ONLY_WITH: dict[str, tuple[str, ...]] = {
    **{
        f"adapter.{name}": (KIND_PATH, str(kind))
        for kind, row in ADAPTERS.items()
        for name in row.options
    },
    **{f"adapter.{name}": ("adapter.aggregation", *REFACTORING) for name in PER_DEVICE},
    **STRATEGY_OPTIONS,
    "strategy.trim": ("strategy.fold", "trimmed_mean"),
    "participation.buffer_size": ("participation.mode", "buffered"),
    "participation.max_staleness": ("participation.mode", "buffered"),
    "participation.staleness_discount": ("participation.mode", "buffered"),
    "participation.staleness_exponent": ("participation.mode", "buffered"),
    "participation.staleness_threshold": ("participation.mode", "buffered"),
    "participation.deadline_slack": ("participation.mode", "synchronous"),
    **{path: (METHOD_PATH, name) for path, name in OF_METHOD.items()},
}
