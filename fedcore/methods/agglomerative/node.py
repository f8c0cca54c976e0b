"""One node of a tree of models: it learns from its text, the bridge and its teachers, and speaks.

Simulation and device agent both go through here, so a launched job and a simulated one have the
same bits. Weights are files; where they lie is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedcore.errors import Fault, ModelError, SpecError
from fedcore.formats.logits_header import ExpectedLogits
from fedcore.methods.contract import DeviceState
from fedcore.methods.distillation.bridge import Bridge, TeacherSignal
from fedcore.methods.distillation.bridge_kernels import bridge_logits as speak
from fedcore.methods.distillation.packed_logits import PackedLogits
from fedcore.methods.session import Session, Update
from fedcore.model.initial import write_initial
from fedcore.model.load import load_tokenizer, resolve
from fedcore.spec.job import JobSpec
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation
from fedcore.train.kernels import KernelContext
from fedcore.train.telemetry import Hooks
from fedcore.train.tokenization import Prepared, prepare
from fedcore.wire.frame import FrameInfo, FrameReader, write_frame


class Node:
    """A model of one level and the bridge as it reads for it; all nodes of a level are alike.

    ``spec`` is the job as the level has it (``fedcore.spec.levels.level_specs``).
    """

    def __init__(self, spec: JobSpec, bridge: Source, session: Session) -> None:
        self.spec, self._session = spec, session
        held = session.prepare(spec, bridge)
        self.bridge = Bridge.of(held.train)
        self._shared = replace(held, train=self.bridge)

    def begin(self, weights: Path) -> FrameInfo:
        """Write a node's first weights: the same on all nodes of a level."""
        first = write_initial(self.spec, weights)
        return FrameInfo(first.sha256, first.size)

    def prepare(self, source: Source | None) -> Prepared:
        """What a node trains on: its own examples, or the bridge (None)."""
        return self._session.prepare(self.spec, source) if source else self._shared

    def train(
        self,
        weights: tuple[Path, Path],
        place: tuple[int, int],
        source: Source | None,
        told: PackedLogits | None,
        hooks: Hooks | None = None,
    ) -> tuple[Update, FrameInfo]:
        """One round: from the first file of ``weights`` into the second, which may be the same.

        ``place``: the round's number, and the node's among those of its level. ``told`` is what
        its teachers say on the bridge (None: nobody has taught yet).
        """
        before, after = weights
        device_state = DeviceState(teacher=TeacherSignal(self.bridge, told, alone=source is None))
        update = self._session.train(
            self.spec, before, self.prepare(source), *place, hooks, device_state=device_state
        )
        frame = FrameReader(before)
        tensors = {name: frame[name] + change for name, change in update.tensors.items()}
        return update, write_frame(after, tensors, dict(frame.meta))

    def speak(self, weights: Path) -> PackedLogits:
        """What a node says on the bridge."""
        options = self.spec.distill
        with self._session.ready(self.spec, weights) as loaded:
            task = KernelContext(
                loaded.model, self._session.device, loaded.precision, 0.0, False, 0
            )
            packing = options.top_k, options.temperature
            return speak(task, self.spec.train.kernels, self.bridge, packing)

    def evaluate(
        self, weights: Path, source: Source | None, hooks: Hooks | None = None
    ) -> Evaluation:
        """On the node's own validation part, or on the held-back part of the bridge (None)."""
        return self._session.evaluate(self.spec, weights, self.prepare(source), hooks)

    @property
    def expected(self) -> ExpectedLogits:
        """What a frame of logits must be for this node to read it."""
        return expected(self.spec, self.bridge)


def read_bridge(spec: JobSpec, bridge: Source, cache: Path) -> Bridge:
    """The bridge as a level's model reads it, without that model."""
    tokenizer = load_tokenizer(resolve(spec.model.name))
    return Bridge.of(prepare(bridge, spec.data, spec.seed, tokenizer, cache).train)


def expected(spec: JobSpec, bridge: Bridge) -> ExpectedLogits:
    """What a frame of logits on the bridge must be."""
    options, vocabulary = spec.distill, vocabulary_of([spec])
    return ExpectedLogits(
        bridge.digest, bridge.rows, options.top_k, vocabulary, options.temperature
    )


def vocabulary_of(specs: Sequence[JobSpec]) -> int:
    """How many tokens all models of a tree speak.

    Raises ModelError where they differ, SpecError where more of them are to be sent than there are.
    """
    sizes = {spec.model.name: int(resolve(spec.model.name).config["vocab_size"]) for spec in specs}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ModelError(
            f"models that teach each other share one vocabulary, and these differ ({listed} "
            f"tokens); take models of one family"
        )
    (name, size), *_ = sizes.items()
    if (kept := specs[0].distill.top_k) > size:
        message = f"{kept} is more than the {size} tokens of {name}"
        raise SpecError([Fault("distill.top_k", message)])
    return size


def check_bridges(specs: Sequence[JobSpec], bridges: Sequence[Bridge]) -> None:
    """Raise ModelError where the levels' models read the same text as other tokens."""
    for spec, bridge in zip(specs, bridges, strict=True):
        if bridge.digest != bridges[0].digest:
            raise ModelError(
                f"{spec.model.name} reads the bridge as other tokens than "
                f"{specs[0].model.name}; take models of one family, with one tokenizer"
            )
