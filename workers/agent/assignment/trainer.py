"""The bridge to fedcore's tensor half. Imported in the training process alone: it loads torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from fedcore.compute.device import peak_memory_bytes, pick_precision
from fedcore.methods.fedpipe_probe import sensitivity
from fedcore.methods.session import Session
from fedcore.plan.cost.flops import mfu
from fedcore.spec.options.method import FEDPIPE_SCORES
from fedcore.spec.rules.fedpipe import probes
from fedcore.train.datasets import Source
from fedcore.train.telemetry import EvaluationProgress, Hooks, Measurement
from workers.agent.assignment.assignment import AssignedWork, Callbacks, CannotDo, Outcome, Received
from workers.agent.assignment.methods import WAYS, Averaging, MethodRunner, Workspace
from workers.agent.profile.local_datasets import LocalDataset

SPOKEN = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class FedcoreTrainer:
    """Keeps the loaded model between assignments.

    ``feedback_dir`` keeps what codecs lost of updates, ``private_dir`` what never leaves.
    ``profile`` is this device's: its peaks in FLOP/s by precision, 0 where it has none, and the
    precision that was the quicker one.
    """

    def __init__(
        self,
        cache_dir: Path,
        threads: int,
        datasets: Mapping[str, LocalDataset],
        feedback_dir: Path,
        private_dir: Path,
        profile: Mapping[str, Any],
    ) -> None:
        self._session = Session(cache_dir, threads)
        self._datasets = datasets
        self._desk = Workspace(self._session, feedback_dir, private_dir)
        self._peak_flops: Mapping[str, float] = profile["peak_flops"]
        self._quicker = str(profile.get("precision") or "")

    def train(
        self, work: AssignedWork, received: Received, update: Path, watch: Callbacks
    ) -> Outcome:
        work = self._settled(work)
        peak, hooks = self._peak(work), self._hooks(work, watch)
        found, frame = self._way(work).train(work, received, self._source(work), update, hooks)
        metrics: dict[str, Any] = {
            **asdict(found.summary),
            "precision": self._precision(work),
            "peak_memory_bytes": peak_memory_bytes(self._session.device),
            **found.measured,
        }
        if found.loss_before is not None:
            metrics["loss_before"] = found.loss_before
        if peak:
            summary = found.summary
            metrics |= {"mfu": mfu(summary.flops, summary.seconds, peak), "mfu_peak_flops": peak}
        return Outcome(found.examples, _finite(metrics), (frame.sha256, frame.size))

    def evaluate(self, work: AssignedWork, weights: Path, watch: Callbacks) -> Outcome:
        def progress(done: EvaluationProgress) -> None:
            watch.advance(done.done, done.total)

        hooks = Hooks(progress=progress, should_stop=watch.should_stop)
        work = self._settled(work)
        source = self._source(work)
        found = self._way(work).evaluate(work, weights, source, hooks)
        told = _finite(found.values())
        if probes(work.spec, work.round):
            told[FEDPIPE_SCORES] = sensitivity(
                self._session, work.spec, weights, source, work.slot, hooks
            )
        return Outcome(found.examples, told)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, watch: Callbacks
    ) -> Outcome:
        cluster = work.cluster
        assert cluster is not None, "a fold without a cluster"
        work = self._settled(work)
        hooks = self._hooks(work, watch)
        metrics, frame = self._way(work).fold(work, updates, update, hooks)
        return Outcome(cluster.examples, _finite(metrics), (frame.sha256, frame.size))

    def _hooks(self, work: AssignedWork, watch: Callbacks) -> Hooks:
        """How training tells of itself."""
        peak = self._peak(work)

        def report(measured: Measurement) -> None:
            watch.advance(measured.step, measured.steps_total)
            watch.record(values_of(measured, peak))

        return Hooks(report=report, should_stop=watch.should_stop)

    def _way(self, work: AssignedWork) -> MethodRunner:
        return WAYS.get(work.spec.method.name, Averaging)(self._desk)

    def _source(self, work: AssignedWork) -> Source:
        held = self._datasets.get(work.dataset)
        if held is None:
            names = ", ".join(self._datasets) or "none"
            raise CannotDo(f"this device holds no dataset {work.dataset!r}; it holds: {names}")
        return Source(held.source, held.text_column, held.summary_column, held.domain)

    def _settled(self, work: AssignedWork) -> AssignedWork:
        """With the precision that was measured to be quicker, where the job leaves it to us."""
        train = work.spec.train
        if train.precision != "auto" or self._quicker not in SPOKEN.values():
            return work
        return replace(work, spec=replace(work.spec, train=replace(train, precision=self._quicker)))

    def _precision(self, work: AssignedWork) -> str:
        return SPOKEN[pick_precision(work.spec.train.precision, self._session.device)]

    def _peak(self, work: AssignedWork) -> float:
        return float(self._peak_flops.get(self._precision(work)) or 0.0)


def values_of(measured: Measurement, peak: float) -> dict[str, float]:
    """A sample's values (docs/reference/protocol.md); tokens and FLOPs of its interval."""
    values: dict[str, float] = {
        "step": measured.step,
        "loss": measured.loss,
        "learning_rate": measured.learning_rate,
        "tokens": measured.tokens,
        "tokens_per_s": measured.tokens_per_s,
        "flops": measured.flops,
        "flops_per_s": measured.flops_per_s,
        "peak_memory_bytes": measured.peak_memory_bytes,
    }
    values |= {f"{phase}_s": seconds for phase, seconds in measured.phase_s.items()}
    if measured.reward is not None:
        values["reward"] = measured.reward
    if peak:
        values |= {"mfu": measured.flops_per_s / peak, "mfu_peak_flops": peak}
    return values


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    """Without numbers that JSON cannot carry."""
    return {
        name: value
        for name, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
