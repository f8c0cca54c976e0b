"""Plain federated training: nothing beside the task loss and the strategy's own term."""

from __future__ import annotations

from fedcore.methods.training import MethodTraining

ROW = MethodTraining()
