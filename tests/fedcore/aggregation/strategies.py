"""A server in a folder that folds what a test hands it, under any strategy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcore.aggregation.fold_task import FoldReport, NextFiles, ServerFiles
from fedcore.aggregation.next_model import fold_files
from fedcore.aggregation.update_files import UpdateFile
from fedcore.spec.job import JobSpec
from fedcore.spec.options.strategy import StrategySpec
from fedcore.spec.options.train import TrainSpec
from fedcore.wire.frame import FrameReader, write_frame

A, B = "m.q.lora_A.weight", "m.q.lora_B.weight"
SHAPES = {A: (2, 6), B: (5, 2)}
Sent = tuple[dict[str, Tensor], float, int]  # deltas, weight, slot
STEPS, LOSS = 4, 2.0  # what a device reports by default


def job(name: str, **options: object) -> JobSpec:
    """A job of devices that take four SGD steps, which every strategy accepts."""
    train = replace(TrainSpec(), local_steps=STEPS, optimizer="sgd", learning_rate=0.05)
    return JobSpec(strategy=replace(StrategySpec(), name=name, **options), train=train)


def noise(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: scale * torch.randn(s, generator=generator) for n, s in SHAPES.items()}


def zeros() -> dict[str, Tensor]:
    return {n: torch.zeros(s) for n, s in SHAPES.items()}


class Server:
    """A folder with global weights; ``reported`` overrides the stats that slots report."""

    def __init__(self, folder: Path, spec: JobSpec) -> None:
        self.folder, self.spec, self.round = folder, spec, 0
        self.state: Path | None = None
        folder.mkdir(parents=True, exist_ok=True)
        write_frame(self.path, noise(0), {"kind": "global", "fingerprint": "abc"})

    @property
    def path(self) -> Path:
        return self.folder / f"global-{self.round}"

    @property
    def weights(self) -> dict[str, Tensor]:
        reader = FrameReader(self.path)
        return {name: reader[name].clone() for name in reader}

    def files(
        self, updates: list[Sent], reported: dict[int, dict[str, Any]] | None = None
    ) -> list[UpdateFile]:
        result = []
        for tensors, weight, slot in updates:
            path = self.folder / f"update-{slot}"
            write_frame(path, tensors, {"kind": "update"})
            words = {"steps": STEPS, "loss_before": LOSS, **(reported or {}).get(slot, {})}
            result.append(UpdateFile(path, weight, slot, **words))
        return result

    def fold(
        self, updates: list[Sent], reported: dict[int, dict[str, Any]] | None = None
    ) -> FoldReport:
        files = self.files(updates, reported)
        after, state = self.folder / f"global-{self.round + 1}", self.folder / f"s-{self.round + 1}"
        before = ServerFiles(self.path, self.state)
        report = fold_files(self.spec, before, files, NextFiles(after, state))
        self.round, self.state = self.round + 1, state
        return report

    def step(
        self, updates: list[Sent], reported: dict[int, dict[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """How far a fold moves the weights."""
        before = self.weights
        self.fold(updates, reported)
        return {n: tensor - before[n] for n, tensor in self.weights.items()}
