"""FedPipe's probe (arXiv 2404.06448): how much each matrix matters to a device's loss.

The score of a matrix is the smoothed sensitivity of an adapter on it, the sum of ``|w dL/dw|`` over
its weights: to first order the change of the loss without them. The probe takes the gradients of a
few batches and changes no weight of the model.

Our choices: adapters of rank 4 at most stand in for those to be trained. B starts at zero, where
A has no gradient and B no weight. So each entry of B is set to the learning rate with a random sign
from the job's seed, which is the size of a first AdamW step. Scores are exponential moving averages
with decay 0.85 a batch, as in AdaLoRA (Zhang et al. 2023, arXiv 2303.10512), from the first batch's
score on.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fedcore.architecture.matrices import matrices
from fedcore.methods.session import Session, set_dropout
from fedcore.model.parameters import adapter_parameters
from fedcore.seeds import derive
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import factor_of
from fedcore.train.datasets import Source
from fedcore.train.gradient_passes import each_gradient
from fedcore.train.loop import TrainingTask
from fedcore.train.telemetry import Hooks
from fedcore.train.tokenization import Prepared

RANK = 4
BATCHES = 8
DECAY = 0.85  # of the moving average, per batch
DIGITS = 4  # significant ones, so that a report is small and equal on both sides of the wire


def sensitivity(
    session: Session,
    spec: JobSpec,
    global_path: Path | str,
    source: Source | Prepared,
    slot: int,
    hooks: Hooks | None = None,
) -> dict[str, float]:
    """The score of each matrix of the LoRA targets on one device's examples, by ``Matrix.key``."""
    rank = min(RANK, spec.adapter.rank)
    pattern = tuple(entry for entry in spec.adapter.pattern if entry.endswith("=0"))
    adapter = replace(
        spec.adapter, rank=rank, alpha=spec.adapter.scale * rank, dropout=0.0, pattern=pattern
    )
    probe = replace(spec, adapter=adapter)
    with session.ready(probe, global_path) as loaded:
        prepared = session.prepare(spec, source)
        seed = derive(spec.seed, "probe", slot)
        examples = prepared.train
        count = min(BATCHES * spec.train.batch_size, len(examples))
        set_dropout(loaded.model, 0.0)
        nudge(loaded.model, spec.train.learning_rate, derive(spec.seed, "probe"))
        work = TrainingTask(
            loaded.model,
            examples.some(random.Random(seed).sample(range(len(examples)), count)),
            spec.train,
            loaded.cost(probe).training,
            seed,
            session.device,
            loaded.precision,
            0.0,
            session.micro_batch(probe, loaded, prepared),
        )
        scores = _Scores(dict(adapter_parameters(loaded.model)))
        each_gradient(work, hooks or Hooks(), scores.add)
        keys = {row.name: row.key for row in matrices(loaded.sizes)}
    return {keys[name]: float(f"{score:.{DIGITS}g}") for name, score in scores.smoothed.items()}


@torch.no_grad()
def nudge(model: object, size: float, seed: int) -> None:
    """Add ``size`` with a random sign to every entry of B, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(adapter_parameters(model)):
        if factor_of(name)[1] == "B":
            signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
            parameter.add_((size * signs).to(parameter.device, parameter.dtype))


@dataclass
class _Scores:
    weights: Mapping[str, torch.nn.Parameter]
    smoothed: dict[str, float] = field(default_factory=dict)

    def add(self, share: float) -> None:
        """Add the gradients of one batch."""
        del share  # every batch counts alike
        batch: dict[str, float] = defaultdict(float)
        for name, parameter in sorted(self.weights.items()):
            if parameter.grad is not None:
                batch[factor_of(name)[0]] += float(
                    (parameter.detach() * parameter.grad).abs().sum()
                )
        for module, score in batch.items():
            before = self.smoothed.get(module, score)
            self.smoothed[module] = DECAY * before + (1 - DECAY) * score
