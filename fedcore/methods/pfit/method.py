"""PFIT on a device: PPO on its own rewards, near the weights it received."""

from __future__ import annotations

from fedcore.methods.contract import Context, LossTerm
from fedcore.methods.objectives import distance_penalty
from fedcore.methods.pfit.ppo_loop import reinforce
from fedcore.methods.training import MethodTraining


def l2_to_received(context: Context) -> LossTerm:
    """PFIT (arXiv 2404.13238): ``method.distance * |w - w_received|^2``."""
    return distance_penalty(context, context.spec.method.distance)


ROW = MethodTraining(objective=l2_to_received, loop=reinforce)
