"""Coefficients of the planner from a few measured configurations, by least squares.

The fit minimises squared relative errors. A weak spring holds each coefficient near its former
value, because a few configurations cannot separate all coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.plan_run import StepMeasurement
from fedcore.hardware.profile import Hardware
from fedcore.plan.cost.coefficients import KernelCoefficients
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.step_time import Terms, product_rate, terms
from fedcore.plan.cost.workload import BatchShape, Workload

SPRING = 0.05
LEAST, MOST = 0.2, 5.0  # relative to the former value


@dataclass(frozen=True)
class CalibrationSample:
    """One configuration of ``parts`` micro-batches of ``work`` per step, and its measurement."""

    method: Workload
    work: BatchShape
    parts: int
    measured: StepMeasurement


def fit(
    samples: Sequence[CalibrationSample], hardware: Hardware
) -> tuple[KernelCoefficients, float]:
    """The coefficients of one set of kernels, and the bytes of the process itself."""
    old = samples[0].method.coefficients
    rows, measured = [], []
    for sample in samples:
        rate, bandwidth = product_rate(hardware, sample.method.precision), hardware.bandwidth_bps
        assert rate is not None and bandwidth is not None
        phase_terms = terms(sample.method, sample.work, sample.parts, rate, bandwidth).values()
        whole = sum(phase_terms, Terms())
        rows.append([whole.product_s, whole.memory_s, whole.calls])
        measured.append(sample.measured.step_s)
    start = np.array([1 / old.product, old.passes, old.call_s])
    slow, passes, call_s = _solve(np.array(rows), np.array(measured), start)
    activations, runtime = _memory(samples, hardware, old)
    fitted = replace(old, product=1 / slow, passes=passes, call_s=call_s, activations=activations)
    return fitted, runtime


def _memory(
    samples: Sequence[CalibrationSample], hardware: Hardware, old: KernelCoefficients
) -> tuple[float, float]:
    """The factor on saved activations and the process's bytes, from cases that peak in training."""
    rows, measured = [], []
    runtime = float(np.median([sample.measured.imported for sample in samples]))
    for sample in samples:
        estimate = memory(sample.method, sample.work, hardware.accelerator, runtime)
        if estimate.peak > estimate.training:
            continue
        saved_bytes = estimate.parts["activations"] / old.activations
        rows.append([saved_bytes, 1.0])
        rest = estimate.training - estimate.parts["activations"] - runtime
        measured.append(sample.measured.peak_bytes - rest)
    if not rows:
        return old.activations, runtime
    floor = max(runtime, 1.0)
    start = np.array([old.activations, floor])
    peaks = np.array([sample.measured.peak_bytes for sample in samples])[: len(rows)]
    kept_factor, process = _solve(np.array(rows), np.array(measured), start, peaks)
    return kept_factor, process


def _solve(
    rows: NDArray[np.float64],
    measured: NDArray[np.float64],
    start: NDArray[np.float64],
    scale: NDArray[np.float64] | None = None,
) -> list[float]:
    """Solve rows x = measured for x, relative to ``scale`` (default: ``measured``)."""
    by = measured if scale is None else scale
    springs = np.diag(SPRING / start)
    scaled_rows = np.vstack([rows / by[:, None], springs])
    targets = np.concatenate([measured / by, np.full(len(start), SPRING)])
    # In units of the start, so that calls of microseconds weigh as much as factors of one.
    matrix = scaled_rows * start
    # Least squares with every unknown clipped to LEAST and MOST.
    solution = np.ones(matrix.shape[1])
    free = np.ones(matrix.shape[1], dtype=bool)
    while free.any():
        rest = targets - matrix[:, ~free] @ solution[~free]
        solution[free], *_ = np.linalg.lstsq(matrix[:, free], rest, rcond=None)
        outside = free & ((solution < LEAST) | (solution > MOST))
        if not outside.any():
            break
        solution = np.clip(solution, LEAST, MOST)
        free &= ~outside
    return [float(value) for value in solution * start]
