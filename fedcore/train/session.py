"""Local work of a device: the base model stays loaded, everything else starts anew at each call.

Device agent and simulation both go through here. With one thread, fp32 and ``deterministic`` a
call's result depends on its arguments alone, not on what the session did before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcore.errors import ModelError
from fedcore.model.adapters import attach, set_trainable, trainable_parameters
from fedcore.model.load import load_base
from fedcore.plan.flops import Architecture, StepCost, full_cost, lora_cost
from fedcore.plan.memory import largest_micro_batch, usable
from fedcore.plan.method import Method
from fedcore.plan.method import Work as BatchWork
from fedcore.seeds import derive
from fedcore.spec import JobSpec
from fedcore.train.data import Prepared, prepare
from fedcore.train.evaluate import Bench, Evaluation, evaluate
from fedcore.train.hardware import (
    SPOKEN,
    free_memory_bytes,
    pick_device,
    pick_precision,
    repeatable,
    threads,
)
from fedcore.train.loop import TrainSummary, Work, train_locally
from fedcore.train.objectives import objective_of
from fedcore.train.pages import keep_pages, release_pages
from fedcore.train.sources import Source
from fedcore.train.telemetry import Hooks
from fedcore.wire.frame import FrameReader


@dataclass(frozen=True)
class Update:
    """A device's contribution: fp32 deltas to the global weights, and its weight (examples)."""

    tensors: dict[str, Tensor]
    examples: int
    steps: int
    summary: TrainSummary


@dataclass(frozen=True)
class _Loaded:
    model: Any
    tokenizer: Any
    fingerprint: str
    dropout: float
    sizes: Architecture
    cost: StepCost
    precision: torch.dtype


class Session:
    """Local training and evaluation with the model kept between calls.

    ``threads`` is the device's number of CPU threads (0: torch's own choice) where the job leaves
    it open. ``cache_dir`` holds tokenized examples. The process keeps freed memory from now on.
    """

    def __init__(self, cache_dir: Path | str, threads: int = 0) -> None:
        self.cache_dir = Path(cache_dir)
        self.threads = threads
        self.device = pick_device()
        keep_pages()
        self._key: object = None
        self._loaded: _Loaded | None = None
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
    ) -> Update:
        """Train from the global weights on one device's examples; return the difference.

        Order and dropout derive from the job's seed, the round's number and the device's slot; and
        from ``draw`` where an asynchronous job has a device train on the same weights once more.
        """
        drawn = (draw,) if draw else ()
        with self._ready(spec, global_path) as (loaded, weights):
            prepared = self.prepare(spec, source)
            dropout = loaded.dropout if spec.train.dropout < 0 else spec.train.dropout
            set_dropout(loaded.model, dropout)
            work = Work(
                loaded.model,
                prepared.train,
                spec.train,
                objective_of(spec),
                loaded.cost.training,
                derive(spec.seed, "train", round_number, slot, *drawn),
                self.device,
                loaded.precision,
                dropout,
                self._micro_batch(spec, loaded, prepared),
            )
            summary = train_locally(work, hooks or Hooks())
            return Update(_delta(loaded.model, weights), prepared.examples, summary.steps, summary)

    def _micro_batch(self, spec: JobSpec, loaded: _Loaded, prepared: Prepared) -> int:
        """Examples at a time that fit this device's memory by the planner's estimate; 0: all.

        A deterministic job gets its bits whatever else uses the memory, so it is left alone.
        """
        if spec.train.micro_batch or spec.deterministic or not prepared.examples:
            return 0
        lengths = prepared.train.lengths
        longest = max(s for s, _ in lengths), max(t for _, t in lengths)
        accelerated = self.device.type != "cpu"
        method = Method.of(spec, loaded.sizes, SPOKEN[loaded.precision], accelerated)
        limit = usable(free_memory_bytes(self.device))
        batch = BatchWork(min(spec.train.batch_size, len(lengths)), *longest)
        return largest_micro_batch(method, batch, limit, accelerated).examples

    def evaluate(
        self,
        spec: JobSpec,
        global_path: Path | str,
        source: Source | Prepared,
        hooks: Hooks | None = None,
    ) -> Evaluation:
        """Loss and ROUGE of the global weights on one device's validation part."""
        with self._ready(spec, global_path) as (loaded, _):
            prepared = self.prepare(spec, source)
            bench = Bench(
                loaded.model,
                loaded.tokenizer,
                spec.data.max_target_tokens,
                self.device,
                loaded.precision,
            )
            return evaluate(bench, prepared, hooks or Hooks())

    def prepare(self, spec: JobSpec, source: Source | Prepared) -> Prepared:
        """The device's examples, split and tokenized; kept while the file stays as it is."""
        if isinstance(source, Prepared):
            return source
        stat = source.path.stat() if source.is_file and source.path.is_file() else None
        stamp = (stat.st_mtime_ns, stat.st_size) if stat else None
        key = (source, stamp, spec.model.name, spec.data, spec.seed)
        if key not in self._prepared:
            tokenizer = self._load(spec).tokenizer
            found = prepare(source, spec.data, spec.seed, tokenizer, self.cache_dir)
            self._prepared[key] = found
        return self._prepared[key]

    @contextmanager
    def _ready(
        self, spec: JobSpec, global_path: Path | str
    ) -> Iterator[tuple[_Loaded, FrameReader]]:
        with ExitStack() as stack:
            stack.enter_context(threads(spec.threads or self.threads))
            stack.enter_context(repeatable(spec.deterministic))
            loaded = self._load(spec)
            weights = FrameReader(global_path)
            wanted = weights.meta.get("fingerprint")
            if wanted and wanted != loaded.fingerprint:
                raise ModelError(
                    f"foreign base: the job's weights belong to other weights than "
                    f"{spec.model.name} has on this device; fetch the model again"
                )
            # Through a reader of its own: one that stays open keeps the file's pages in memory.
            set_trainable(loaded.model, FrameReader(global_path))
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            try:
                yield loaded, weights
            finally:
                release_pages()

    def _load(self, spec: JobSpec) -> _Loaded:
        precision = pick_precision(spec.train.precision, self.device)
        adapter = replace(spec.adapter, aggregation="fedit")
        key = (spec.model, adapter, precision)
        if self._loaded is None or key != self._key:
            self._loaded, self._prepared = None, {}
            self._loaded = self._build(spec, precision)
            self._key = key
        return self._loaded

    def _build(self, spec: JobSpec, precision: torch.dtype) -> _Loaded:
        full = spec.adapter.kind == "full"
        kept = torch.float32 if full else precision
        base = load_base(spec.model.name, kept, spec.model.base)
        sizes = Architecture.from_config(base.source.config)
        lora = spec.adapter
        cost = full_cost(sizes) if full else lora_cost(sizes, lora.rank, lora.targets)
        dropout = float(base.model.config.dropout_rate)
        model = attach(base, spec.adapter, spec.seed).to(self.device)
        return _Loaded(model, base.tokenizer, base.fingerprint, dropout, sizes, cost, precision)


def _delta(model: Any, weights: FrameReader) -> dict[str, Tensor]:
    return {
        name: parameter.detach().to("cpu", torch.float32) - weights[name].float()
        for name, parameter in trainable_parameters(model)
    }


def set_dropout(model: Any, rate: float) -> None:
    """Set the base model's dropout (not LoRA's own)."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = rate
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = rate
