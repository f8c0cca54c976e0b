"""Builds the trainer of the training process, which alone imports torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from workers.agent.agent_settings import AgentSettings
from workers.agent.assignment import error_feedback, private_folders
from workers.agent.assignment.contract import Trainer
from workers.agent.profile import local_datasets

MakeTrainer = Callable[[AgentSettings, dict[str, Any]], Trainer]


def trainer_factory(settings: AgentSettings) -> MakeTrainer:
    """The function that the settings name as ``module:function``."""
    module, _, name = settings.trainer.partition(":")
    make_trainer: MakeTrainer = getattr(import_module(module), name)
    return make_trainer


def real_trainer(settings: AgentSettings, profile: dict[str, Any]) -> Trainer:
    from workers.agent.assignment.trainer import FedcoreTrainer

    state_dir = settings.state_dir
    return FedcoreTrainer(
        settings.cache,
        settings.threads,
        {item.name: item for item in local_datasets.load(state_dir)},
        state_dir / error_feedback.FOLDER,
        state_dir / private_folders.FOLDER,
        profile,
    )
