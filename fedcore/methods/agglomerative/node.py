"""One node of a tree of models: trains on its examples, the bridge and its teachers' logits.

The simulation and the device agent both use it, so a launched job and a simulated one give the same
bits. Weights are files; the caller decides where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedcore.errors import Fault, ModelError, SpecError
from fedcore.formats.logits_header import ExpectedLogits
from fedcore.methods.contract import DeviceState
from fedcore.methods.distillation.bridge import Bridge, TeacherSignal
from fedcore.methods.distillation.bridge_kernels import bridge_logits
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
    """A model of one level and the bridge in its tokens; all nodes of a level are alike.

    ``spec`` is the job of the level (``fedcore.spec.levels.level_specs``).
    """

    def __init__(self, spec: JobSpec, bridge: Source, session: Session) -> None:
        self.spec, self._session = spec, session
        prepared = session.prepare(spec, bridge)
        self.bridge = Bridge.of(prepared.train)
        self._bridge_data = replace(prepared, train=self.bridge)

    def begin(self, weights: Path) -> FrameInfo:
        """Write a node's first weights: the same on all nodes of a level."""
        first = write_initial(self.spec, weights)
        return FrameInfo(first.sha256, first.size)

    def prepare(self, source: Source | None) -> Prepared:
        """The examples a node trains on: its own, or the bridge (None)."""
        return self._session.prepare(self.spec, source) if source else self._bridge_data

    def train(
        self,
        weights: tuple[Path, Path],
        place: tuple[int, int],
        source: Source | None,
        teacher: PackedLogits | None,
        hooks: Hooks | None = None,
    ) -> tuple[Update, FrameInfo]:
        """One round: from the first file of ``weights`` into the second, which may be the same.

        ``place``: the round's number and the node's slot in its level. ``teacher``: its teachers'
        logits on the bridge (None: no teacher has trained yet).
        """
        before, after = weights
        signal = TeacherSignal(self.bridge, teacher, bridge_only=source is None)
        state = DeviceState(teacher=signal)
        update = self._session.train(
            self.spec, before, self.prepare(source), *place, hooks, device_state=state
        )
        frame = FrameReader(before)
        tensors = {name: frame[name] + change for name, change in update.tensors.items()}
        return update, write_frame(after, tensors, dict(frame.meta))

    def bridge_logits(self, weights: Path) -> PackedLogits:
        """The node's logits on the bridge."""
        options = self.spec.distill
        with self._session.ready(self.spec, weights) as loaded:
            context = KernelContext(
                loaded.model, self._session.device, loaded.precision, 0.0, False, 0
            )
            packing = options.top_k, options.temperature
            return bridge_logits(context, self.spec.train.kernels, self.bridge, packing)

    def evaluate(
        self, weights: Path, source: Source | None, hooks: Hooks | None = None
    ) -> Evaluation:
        """On the node's own validation part, or on that of the bridge (None)."""
        return self._session.evaluate(self.spec, weights, self.prepare(source), hooks)

    @property
    def expected(self) -> ExpectedLogits:
        """Bridge, sizes and temperature that a frame of logits for this node must have."""
        return expected(self.spec, self.bridge)


def read_bridge(spec: JobSpec, bridge: Source, cache: Path) -> Bridge:
    """The bridge in the tokens of a level's model, without loading that model."""
    tokenizer = load_tokenizer(resolve(spec.model.name))
    return Bridge.of(prepare(bridge, spec.data, spec.seed, tokenizer, cache).train)


def expected(spec: JobSpec, bridge: Bridge) -> ExpectedLogits:
    """Bridge, sizes and temperature that a frame of logits of a level must have."""
    options, vocabulary = spec.distill, vocabulary_of([spec])
    return ExpectedLogits(
        bridge.digest, bridge.rows, options.top_k, vocabulary, options.temperature
    )


def vocabulary_of(specs: Sequence[JobSpec]) -> int:
    """The vocabulary size that all models of a tree share.

    Raises ModelError if sizes differ, SpecError if ``distill.top_k`` is larger.
    """
    sizes = {spec.model.name: int(resolve(spec.model.name).config["vocab_size"]) for spec in specs}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ModelError(
            f"models that teach each other must share one vocabulary, and these differ ({listed} "
            f"tokens); take models of one family"
        )
    (name, size), *_ = sizes.items()
    if (top_k := specs[0].distill.top_k) > size:
        message = f"{top_k} is more than the {size} tokens of {name}"
        raise SpecError([Fault("distill.top_k", message)])
    return size


def check_bridges(specs: Sequence[JobSpec], bridges: Sequence[Bridge]) -> None:
    """Raise ModelError if the levels' tokenizers read the bridge as different tokens."""
    for spec, bridge in zip(specs, bridges, strict=True):
        if bridge.digest != bridges[0].digest:
            raise ModelError(
                f"{spec.model.name} reads the bridge as other tokens than "
                f"{specs[0].model.name}; take models of one family, with one tokenizer"
            )
