"""The nodes of one level: a model each, in files, trained and asked by one session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedcore.distill.bridge import Bridge
from fedcore.distill.frame import Expected
from fedcore.distill.lesson import Lesson, speak
from fedcore.distill.packed import Packed
from fedcore.errors import ModelError
from fedcore.model.initial import write_initial
from fedcore.model.load import resolve
from fedcore.spec import JobSpec
from fedcore.train.data import Prepared
from fedcore.train.evaluate import Evaluation
from fedcore.train.kernels import Task
from fedcore.train.loop import TrainSummary
from fedcore.train.own import Own
from fedcore.train.session import Session
from fedcore.train.sources import Source
from fedcore.train.telemetry import Hooks
from fedcore.wire.frame import FrameReader, write_frame


def level_specs(spec: JobSpec) -> list[JobSpec]:
    """The job as each level has it, from the leaves up: its model, and how it trains."""
    return [spec, *(_above(spec, name) for name in spec.distill.models)]


def _above(spec: JobSpec, model: str) -> JobSpec:
    options = spec.distill
    kept = "auto" if options.parents_train == "full" else spec.model.base
    return replace(
        spec,
        model=replace(spec.model, name=model, base=kept),
        adapter=replace(spec.adapter, kind=options.parents_train),
        train=replace(
            spec.train,
            learning_rate=options.parent_learning_rate,
            local_steps=options.parent_steps or spec.train.local_steps,
        ),
    )


def vocabulary_of(specs: Sequence[JobSpec]) -> int:
    """How many tokens all models of a tree speak. Raises ModelError where they differ."""
    sizes = {spec.model.name: int(resolve(spec.model.name).config["vocab_size"]) for spec in specs}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ModelError(
            f"models that teach each other share one vocabulary, and these differ ({listed} "
            f"tokens); take models of one family"
        )
    return next(iter(sizes.values()))


class Level:
    """Nodes that hold one model each, of the same kind, and the bridge as it reads for them."""

    def __init__(
        self, spec: JobSpec, bridge: Source, folder: Path, cache: Path, hooks: Hooks
    ) -> None:
        self.spec, self._folder, self._hooks = spec, folder, hooks
        self._session = Session(cache, spec.threads)
        held = self._session.prepare(spec, bridge)
        self.bridge = Bridge.of(held.train)
        self._shared = replace(held, train=self.bridge)
        self._sha256: dict[int, str] = {}

    def begin(self, slot: int) -> None:
        """A node's first weights: the same on all nodes of a level."""
        self._sha256[slot] = write_initial(self.spec, self._weights(slot)).sha256

    def prepare(self, source: Source | None) -> Prepared:
        """What a node trains on: its own examples, or the bridge."""
        return self._session.prepare(self.spec, source) if source else self._shared

    def train(
        self, slot: int, number: int, source: Source | None, told: Packed | None
    ) -> TrainSummary:
        """One round of a node; ``told`` is what its teachers say on the bridge."""
        path = self._weights(slot)
        own = Own(lesson=Lesson(self.bridge, told, alone=source is None))
        update = self._session.train(
            self.spec, path, self.prepare(source), number, slot, self._hooks, own=own
        )
        frame = FrameReader(path)
        tensors = {name: frame[name] + change for name, change in update.tensors.items()}
        self._sha256[slot] = write_frame(path, tensors, dict(frame.meta)).sha256
        return update.summary

    def speak(self, slot: int) -> Packed:
        """What a node says on the bridge."""
        options, path = self.spec.distill, self._weights(slot)
        with self._session.ready(self.spec, path) as loaded:
            task = Task(loaded.model, self._session.device, loaded.precision, 0.0, False, 0)
            packing = options.top_k, options.temperature
            return speak(task, self.spec.train.kernels, self.bridge, packing)

    def evaluate(self, slot: int, source: Source | None) -> Evaluation:
        """On the node's own validation part, or on the held-back part of the bridge."""
        return self._session.evaluate(
            self.spec, self._weights(slot), self.prepare(source), self._hooks
        )

    def expected(self, vocabulary: int) -> Expected:
        """What a frame of logits must be for the nodes of this level to read it."""
        options = self.spec.distill
        return Expected(
            self.bridge.digest, self.bridge.rows, options.top_k, vocabulary, options.temperature
        )

    def sha256(self, slot: int) -> str:
        return self._sha256[slot]

    def _weights(self, slot: int) -> Path:
        return self._folder / f"{slot}.safetensors"
