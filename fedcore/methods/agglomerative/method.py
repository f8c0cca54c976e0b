"""The objective of a node in agglomerative federated learning (arXiv 2312.11489).

A leaf minimises ``CE(own data) + gamma (CE + beta KL)(bridge)``, an inner node
``(CE + beta KL)(bridge)``. Each term is a mean over target tokens.

Our choices: at each step a leaf takes one batch of the bridge beside its own, as large as what it
computes at a time. A node without a teacher signal learns from the bridge's targets alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from fedcore.errors import TrainingError
from fedcore.methods.contract import Context, LossTerm
from fedcore.methods.distillation.bridge import Bridge, BridgeExample
from fedcore.methods.distillation.bridge_kernels import DistillationKernels
from fedcore.methods.training import MethodTraining
from fedcore.seeds import derive
from fedcore.train.batches import groups
from fedcore.train.loop import TrainingTask, Weights, job_kernels


def agglomerative(context: Context) -> LossTerm:
    """A leaf's term on the bridge, or an inner node's whole loss. ``gamma`` 0: plain training."""
    teacher, options = context.device_state.teacher, context.spec.distill
    if teacher is None:
        raise TrainingError(
            "agglomerative training needs the bridge samples; "
            "train through fedcore.methods.agglomerative.node"
        )
    kernels = DistillationKernels(job_kernels(context.work, "bridge"), teacher.logits, options.beta)
    if teacher.bridge_only:
        return LossTerm(kernels=kernels)
    if options.gamma == 0:
        return LossTerm()
    bridge = teacher.bridge
    batches = enumerate(_batches(context.work, bridge))

    def penalty(weights: Weights) -> Tensor:
        del weights
        number, examples = next(batches)
        batch = kernels.load(examples)
        loss = kernels.loss(kernels.forward(batch, number * len(bridge)), batch)
        tokens = sum(len(item.target) for item in examples)
        return options.gamma * loss / tokens

    return LossTerm(penalty)


def _batches(work: TrainingTask, bridge: Bridge) -> Iterator[list[BridgeExample]]:
    """Endless batches of the bridge, each pass freshly shuffled."""
    sizes = (work.train.batch_size, work.train.micro_batch, work.micro_batch)
    train = replace(work.train, batch_size=min(size for size in sizes if size))
    for group in groups(train, bridge.lengths, derive(work.seed, "bridge order")):
        for rows in group:
            yield [bridge[row] for row in rows]


ROW = MethodTraining(objective=agglomerative)
