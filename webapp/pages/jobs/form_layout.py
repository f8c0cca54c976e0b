"""Where the options of a new job stand in its form, and what is said of their choices."""

from __future__ import annotations

from fedcore.spec.options.adapter import REFACTORING
from fedcore.spec.options.method import OF_METHOD
from fedcore.spec.options.strategy import ADAPTIVE

# Where an option stands; the longest prefix that fits wins.
SECTIONS: dict[str, tuple[str, str]] = {
    "learn": ("What to learn", "The model to start from, and which of the devices' data it sees."),
    "who": ("Who takes part", "Leave all unticked to use every device that holds enough data."),
    "how": ("How it learns", "The method on the server, and the training on each device."),
    "travel": ("How it travels", "Fewer bytes over slow links, at a stated loss of precision."),
    "limits": ("Limits", "When the job ends and is measured, and how long a round waits for whom."),
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
# These open their section in this order, each choice before what belongs to it, and none of them is
# folded away; the others follow as they are declared.
FIRST = (
    *("name", "rounds"),
    *("adapter.kind", "adapter.width", "adapter.last_layers", "adapter.rank", "adapter.alpha"),
    *("adapter.aggregation", "adapter.ranks"),
    *("strategy.name", "strategy.proximal_mu", "strategy.fairness_q"),
    "strategy.server_learning_rate",
    *("method.name", "method.restraint", "method.own_rank", "method.own_ranks"),
    *("method.memory_budget_mb", "method.time_budget_s"),
    *("method.rewards", "method.weights", "method.samples"),
)

# Options drawn as cards, with one line for each choice.
CARDS: dict[str, dict[str, tuple[str, str]]] = {
    "strategy.name": {
        "fedavg": ("FedAvg", "Average the updates by number of examples. Start here."),
        "fedprox": ("FedProx", "Hold devices near the global model; for very different data."),
        "fedadam": (
            "FedAdam",
            "Adaptive steps on the server. Lower the server rate, to 0.01 at first.",
        ),
        "fedavgm": ("FedAvgM", "Average with momentum: steadier where rounds disagree."),
        "fedadamw": ("FedAdamW", "FedAdam that also pulls every weight towards zero."),
        "fedyogi": ("FedYogi", "FedAdam whose steps grow back slowly; for sparse gradients."),
        "fedadagrad": ("FedAdagrad", "Steps that only ever shrink, each weight at its own pace."),
        "fednova": ("FedNova", "Count updates by step, where devices take unlike numbers of them."),
        "qfedavg": ("q-FedAvg", "Listen more to devices the model serves badly."),
        "scaffold": ("SCAFFOLD", "Correct each device's drift. Needs SGD and a number of steps."),
    },
    "adapter.aggregation": {
        "fedit": ("FedIT", "A and B averaged apart: cheap, but not quite their product."),
        "ffa": ("FFA-LoRA", "A stays as it was, B is averaged: exact, half the bytes."),
        "fedex": ("FedEx-LoRA", "Apart, and what that misses goes into the base: exact."),
        "flexlora": ("FlexLoRA", "Products averaged and cut to rank by SVD; ranks may differ."),
        "stack": ("Stacked", "All factors side by side: exact; ranks may differ."),
    },
    "method.name": {
        "none": ("No method", "Plain federated training. Start here."),
        "fedjudge": ("FedJudge", "Hold what matters to all while devices learn what is theirs."),
        "pftt": ("PFTT", "Share bottlenecks, and let each device keep a LoRA of its own."),
        "pfit": ("PFIT", "Each device learns from rewards of its own; LoRA or last layers."),
        "fedpipe": (
            "FedPipe",
            "Plan matrices, ranks and base to fit each device; LoRA averaged by FlexLoRA.",
        ),
        "agglomerative": (
            "Agglomerative",
            "Larger models above smaller ones, which teach each other over shared text.",
        ),
    },
    "participation.mode": {
        "synchronous": ("Rounds together", "Each model waits for the devices that make it."),
        "buffered": (
            "Asynchronous",
            "A few updates make the next model; slow devices deliver when they are done.",
        ),
    },
    "adapter.kind": {
        "lora": ("LoRA adapter", "Train small matrices only: a hundredth of the bytes."),
        "bottleneck": (
            "Bottleneck adapters",
            "Small layers after each feed-forward block; PFTT shares these.",
        ),
        "layers": ("Last decoder layers", "Train these alone and whole; the rest stays as it is."),
        "full": ("Every weight", "Train the whole model: more memory, far more traffic."),
    },
}
# Of cards that are many, those seen at once; the others unfold.
USUAL = {"strategy.name": ("fedavg", "fedprox", "fedadam")}
# Options that matter only where another option has one of the values after it.
ONLY_WITH: dict[str, tuple[str, ...]] = {
    "adapter.width": ("adapter.kind", "bottleneck"),
    "adapter.last_layers": ("adapter.kind", "layers"),
    "adapter.rank": ("adapter.kind", "lora"),
    "adapter.alpha": ("adapter.kind", "lora"),
    "adapter.dropout": ("adapter.kind", "lora"),
    "adapter.targets": ("adapter.kind", "lora"),
    "adapter.aggregation": ("adapter.kind", "lora"),
    "adapter.pattern": ("adapter.kind", "lora"),
    "adapter.ranks": ("adapter.aggregation", *REFACTORING),
    "adapter.alphas": ("adapter.aggregation", *REFACTORING),
    "adapter.modules": ("adapter.aggregation", *REFACTORING),
    "strategy.beta1": ("strategy.name", "fedavgm", *ADAPTIVE),
    "strategy.beta2": ("strategy.name", "fedadam", "fedadamw", "fedyogi"),
    "strategy.tau": ("strategy.name", *ADAPTIVE),
    "strategy.server_weight_decay": ("strategy.name", "fedadamw"),
    "strategy.proximal_mu": ("strategy.name", "fedprox"),
    "strategy.fairness_q": ("strategy.name", "qfedavg"),
    "strategy.trim": ("strategy.fold", "trimmed_mean"),
    "participation.buffer_size": ("participation.mode", "buffered"),
    "participation.max_staleness": ("participation.mode", "buffered"),
    "participation.staleness_discount": ("participation.mode", "buffered"),
    "participation.staleness_exponent": ("participation.mode", "buffered"),
    "participation.staleness_threshold": ("participation.mode", "buffered"),
    "participation.deadline_slack": ("participation.mode", "synchronous"),
    **{path: ("method.name", name) for path, name in OF_METHOD.items()},
}
