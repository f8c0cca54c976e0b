"""The trainer: runs a job's method with fedcore. Loads torch, so only the training process does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from fedcore.compute.device import peak_memory_bytes, pick_precision
from fedcore.methods.fedpipe.probe import sensitivity
from fedcore.methods.session import Session
from fedcore.plan.cost.flops import mfu
from fedcore.spec.options.method import FEDPIPE_SCORES
from fedcore.train.datasets import Source
from fedcore.train.telemetry import EvaluationProgress, Hooks, Measurement
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, CannotDo, Outcome, Received
from workers.agent.assignment.methods import METHOD_RUNNERS, MethodRunner, Workspace
from workers.agent.profile.local_datasets import LocalDataset

PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class FedcoreTrainer:
    """Keeps the loaded model between assignments.

    ``feedback_dir`` holds residuals of lossy codecs, ``private_dir`` what never leaves the device.
    ``profile`` is this device's: peak FLOP/s by precision (0 where unknown) and the faster
    precision.
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
        self._workspace = Workspace(self._session, feedback_dir, private_dir)
        self._peak_flops: Mapping[str, float] = profile["peak_flops"]
        self._faster_precision = str(profile.get("precision") or "")

    def train(
        self, work: AssignedWork, received: Received, update: Path, callbacks: Callbacks
    ) -> Outcome:
        work = self._with_precision(work)
        peak, hooks = self._peak(work), self._hooks(work, callbacks)
        method, source = self._method(work), self._source(work)
        result, frame = method.train(work, received, source, update, hooks)
        summary = result.summary
        metrics: dict[str, Any] = {
            **asdict(summary),
            "precision": self._precision(work),
            "peak_memory_bytes": peak_memory_bytes(self._session.device),
            **result.measured,
        }
        if result.loss_before is not None:
            metrics["loss_before"] = result.loss_before
        if peak:
            metrics |= {"mfu": mfu(summary.flops, summary.seconds, peak), "mfu_peak_flops": peak}
        return Outcome(result.examples, _finite(metrics), (frame.sha256, frame.size))

    def evaluate(self, work: AssignedWork, weights: Path, callbacks: Callbacks) -> Outcome:
        def progress(done: EvaluationProgress) -> None:
            callbacks.advance(done.done, done.total)

        hooks = Hooks(progress=progress, should_stop=callbacks.should_stop)
        work = self._with_precision(work)
        source = self._source(work)
        evaluation = self._method(work).evaluate(work, weights, source, hooks)
        metrics = _finite(evaluation.values())
        if work.spec.method.scores_matrices(work.round):
            metrics[FEDPIPE_SCORES] = sensitivity(
                self._session, work.spec, weights, source, work.slot, hooks
            )
        return Outcome(evaluation.examples, metrics)

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, callbacks: Callbacks
    ) -> Outcome:
        request = work.fold_request
        assert request is not None, "a fold without a fold request"
        work = self._with_precision(work)
        hooks = self._hooks(work, callbacks)
        metrics, frame = self._method(work).fold(work, updates, update, hooks)
        return Outcome(request.examples, _finite(metrics), (frame.sha256, frame.size))

    def _hooks(self, work: AssignedWork, callbacks: Callbacks) -> Hooks:
        """Hooks that turn the training loop's measurements into progress and samples."""
        peak = self._peak(work)

        def report(measurement: Measurement) -> None:
            callbacks.advance(measurement.step, measurement.steps_total)
            callbacks.record(sample_values(measurement, peak))

        return Hooks(report=report, sized=callbacks.sized, should_stop=callbacks.should_stop)

    def _method(self, work: AssignedWork) -> MethodRunner:
        return METHOD_RUNNERS[work.spec.method.family.exchange](self._workspace)

    def _source(self, work: AssignedWork) -> Source:
        dataset = self._datasets.get(work.dataset)
        if dataset is None:
            names = ", ".join(self._datasets) or "none"
            raise CannotDo(
                f"this device has no dataset {work.dataset!r}; its datasets are: {names}"
            )
        return Source(dataset.source, dataset.text_column, dataset.summary_column, dataset.domain)

    def _with_precision(self, work: AssignedWork) -> AssignedWork:
        """Fill in the precision that was measured to be faster, where the job says "auto"."""
        train, faster = work.spec.train, self._faster_precision
        if train.precision != "auto" or faster not in PRECISION_NAMES.values():
            return work
        return replace(work, spec=replace(work.spec, train=replace(train, precision=faster)))

    def _precision(self, work: AssignedWork) -> str:
        return PRECISION_NAMES[pick_precision(work.spec.train.precision, self._session.device)]

    def _peak(self, work: AssignedWork) -> float:
        return float(self._peak_flops.get(self._precision(work)) or 0.0)


def sample_values(measurement: Measurement, peak: float) -> dict[str, float]:
    """A sample's values (docs/reference/protocol.md); tokens and FLOPs of its interval."""
    values: dict[str, float] = {
        "step": measurement.step,
        "loss": measurement.loss,
        "learning_rate": measurement.learning_rate,
        "tokens": measurement.tokens,
        "tokens_per_s": measurement.tokens_per_s,
        "flops": measurement.flops,
        "flops_per_s": measurement.flops_per_s,
        "peak_memory_bytes": measurement.peak_memory_bytes,
    }
    values |= {f"{phase}_s": seconds for phase, seconds in measurement.phase_s.items()}
    if measurement.reward is not None:
        values["reward"] = measurement.reward
    if peak:
        values |= {"mfu": measurement.flops_per_s / peak, "mfu_peak_flops": peak}
    return values


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    """Without NaN and infinity, which JSON cannot carry."""
    return {
        name: value
        for name, value in metrics.items()
        if not isinstance(value, float) or math.isfinite(value)
    }
