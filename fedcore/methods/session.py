"""Local training and evaluation on a device, with the base model loaded between calls.

The device agent and the simulation both use it. With one thread, fp32 and ``deterministic`` a
call's result depends on its arguments alone, not on what the session did before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcore.compute.determinism import deterministic_algorithms, torch_threads
from fedcore.compute.device import PRECISION_NAMES, free_memory_bytes, pick_device, pick_precision
from fedcore.compute.memory_pages import keep_pages, release_pages
from fedcore.methods.contract import Context, DeviceState
from fedcore.methods.registry import METHOD_TRAINING, term_of
from fedcore.plan.cost.memory import usable
from fedcore.plan.cost.round import micro_batch_memory
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.seeds import derive
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import plain
from fedcore.train.datasets import Source
from fedcore.train.evaluate import Evaluation, EvaluationContext, evaluate, with_personal
from fedcore.train.gradient_passes import mean_loss
from fedcore.train.loaded_model import LoadedModel
from fedcore.train.loop import TrainingTask, TrainSummary
from fedcore.train.telemetry import Hooks
from fedcore.train.tokenization import Prepared, prepare


@dataclass(frozen=True)
class Update:
    """A device's contribution: fp32 deltas to the global weights, and its weight (examples).

    ``loss_before``: of the received model on the training data, if the strategy needs it.
    ``measured``: the method's metrics by name (``fedcore.methods.training``).
    """

    tensors: dict[str, Tensor]
    examples: int
    steps: int
    summary: TrainSummary
    loss_before: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)


class Session:
    """Local training and evaluation; the model stays loaded between calls.

    ``threads``: CPU threads if the job does not set them (0: torch's default). ``cache_dir``:
    tokenized examples. From now on the process does not return freed memory to the system.
    """

    def __init__(self, cache_dir: Path | str, threads: int = 0) -> None:
        self.cache_dir = Path(cache_dir)
        self.threads = threads
        self.device = pick_device()
        keep_pages()
        self._key: object = None
        self._loaded: LoadedModel | None = None
        self._prepared: dict[object, Prepared] = {}

    def train(
        self,
        spec: JobSpec,
        global_path: Path | str,
        source: Source | Prepared,
        round_number: int,
        slot: int,
        hooks: Hooks | None = None,
        draw: int = 0,
        device_state: DeviceState | None = None,
    ) -> Update:
        """Train from the global weights on one device's examples; return the difference.

        ``spec``: the job with this device's overrides (``fedcore.spec.overrides``). Order and
        dropout derive from the job's seed, the round's number and the device's slot. ``draw``
        counts earlier trainings on the same weights, in asynchronous jobs.
        """
        hooks, again = hooks or Hooks(), (draw,) if draw else ()
        with self.ready(spec, global_path) as loaded:
            prepared = self.prepare(spec, source)
            dropout = loaded.dropout if spec.train.dropout < 0 else spec.train.dropout
            set_dropout(loaded.model, dropout)
            work = TrainingTask(
                loaded.model,
                prepared.train,
                spec.train,
                loaded.cost(spec).training,
                derive(spec.seed, "train", round_number, slot, *again),
                self.device,
                loaded.precision,
                dropout,
                self.micro_batch(spec, loaded, prepared),
            )
            hooks.sized(examples_at_once(work))
            before = mean_loss(work, hooks) if spec.strategy.family.measures_loss else None
            context = Context(spec, work, round_number, device_state or DeviceState(), hooks, draw)
            term = term_of(context)
            train = METHOD_TRAINING[spec.method.family.kind].loop
            summary, measured = train(context, prepared, loaded.base.tokenizer, term)
            tensors = loaded.delta(global_path)
            term.finish(tensors, summary.steps)
            return Update(tensors, prepared.examples, summary.steps, summary, before, measured)

    def micro_batch(self, spec: JobSpec, loaded: LoadedModel, prepared: Prepared) -> int:
        """Examples at a time that fit this device's memory by the planner's estimate; 0: all.

        Deterministic jobs are not split: their bits must not depend on free memory.
        """
        if spec.train.micro_batch or spec.deterministic or not prepared.examples:
            return 0
        lengths = prepared.train.lengths
        longest = max(s for s, _ in lengths), max(t for _, t in lengths)
        accelerated = self.device.type != "cpu"
        method = Workload.of(spec, loaded.sizes, PRECISION_NAMES[loaded.precision], accelerated)
        limit = usable(free_memory_bytes(self.device))
        batch = BatchShape(min(spec.train.batch_size, len(lengths)), *longest)
        return micro_batch_memory(spec, method, batch, limit, accelerated).examples

    def evaluate(
        self,
        spec: JobSpec,
        global_path: Path | str,
        source: Source | Prepared,
        hooks: Hooks | None = None,
        round_number: int = 0,
        device_state: DeviceState | None = None,
    ) -> Evaluation:
        """Loss and ROUGE of the global weights on one device's validation part.

        A personal model, if the method has one, is evaluated on the same examples, as it is after
        the round.
        """
        with self.ready(plain(spec), global_path) as loaded:
            prepared = self.prepare(spec, source)
            context = EvaluationContext(
                loaded.model,
                loaded.base.tokenizer,
                spec.data.max_target_tokens,
                self.device,
                loaded.precision,
                spec.train.kernels,
            )
            shared = evaluate(context, prepared, hooks or Hooks())
            load_personal = METHOD_TRAINING[spec.method.family.kind].load_personal
            if load_personal is None:
                return shared
            load_personal(loaded.model, device_state or DeviceState(), round_number)
            return with_personal(shared, evaluate(context, prepared, hooks or Hooks()))

    def prepare(self, spec: JobSpec, source: Source | Prepared) -> Prepared:
        """The device's examples, split and tokenized; cached until the file changes."""
        if isinstance(source, Prepared):
            return source
        stat = source.path.stat() if source.is_file and source.path.is_file() else None
        stamp = (stat.st_mtime_ns, stat.st_size) if stat else None
        key = (source, stamp, spec.model.name, spec.data, spec.seed)
        if key not in self._prepared:
            tokenizer = self._load(spec).base.tokenizer
            prepared = prepare(source, spec.data, spec.seed, tokenizer, self.cache_dir)
            self._prepared[key] = prepared
        return self._prepared[key]

    @contextmanager
    def ready(self, spec: JobSpec, global_path: Path | str) -> Iterator[LoadedModel]:
        """The model with these weights, and the job's threads and determinism in effect."""
        with ExitStack() as stack:
            stack.enter_context(torch_threads(spec.threads or self.threads))
            stack.enter_context(deterministic_algorithms(spec.deterministic))
            loaded = self._load(spec)
            loaded.load_weights(spec, global_path, self.device)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            try:
                yield loaded
            finally:
                release_pages()

    def _load(self, spec: JobSpec) -> LoadedModel:
        precision = pick_precision(spec.train.precision, self.device)
        layers = spec.adapter.last_layers  # training changes those of the base
        key = (spec.model, spec.adapter.family.kind, layers, precision)
        if self._loaded is None or key != self._key:
            self._loaded, self._prepared = None, {}
            self._loaded = LoadedModel.of(spec, precision)
            self._key = key
        return self._loaded


def examples_at_once(work: TrainingTask) -> int:
    """The most examples in one forward pass; with ``micro_tokens``, of the longest ones."""
    train, lengths = work.train, work.examples.lengths
    batch = min(train.batch_size, len(lengths))
    most = min(batch, train.micro_batch or work.micro_batch or batch)
    if not train.micro_tokens or not lengths:
        return most
    return min(most, max(1, train.micro_tokens // max(map(sum, lengths))))


def set_dropout(model: Any, rate: float) -> None:
    """Set the base model's dropout (not LoRA's device_state)."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = rate
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = rate
