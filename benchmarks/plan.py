"""Planner accuracy: predicted and measured step time and peak memory.

Each configuration trains random weights in its own process. Some configurations calibrate the
planner's coefficients on this machine and are marked. The others are judged.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.plan_fit import CalibrationSample, fit
from benchmarks.plan_run import StepMeasurement
from benchmarks.random_model import random_model
from fedcore.architecture.sizes import Architecture, architecture_of
from fedcore.errors import TrainingError
from fedcore.hardware.profile import Hardware, hardware_of
from fedcore.model.initial import write_initial
from fedcore.plan.cost.coefficients import KernelCoefficients
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.step_time import step
from fedcore.plan.cost.workload import BatchShape, Workload
from fedcore.spec.job import JobSpec
from fedcore.spec.parse import parse_spec

LIMITS = {"step": 0.25, "memory": 0.15}
SMALL = "google/flan-t5-small"


@dataclass(frozen=True)
class PlanCase:
    """One configuration. ``options`` are options of ``train``, in addition to the batch size."""

    model: str
    kind: str
    precision: str
    batch: int
    source: int
    target: int
    base: str = "auto"
    options: tuple[tuple[str, Any], ...] = ()
    calibrates: bool = False

    def spec(self, folder: str, steps: int) -> JobSpec:
        train = {
            "local_steps": steps, "batch_size": self.batch, "micro_batch": self.batch,
            "precision": self.precision, **dict(self.options),
        }  # fmt: skip
        return parse_spec(
            {
                "model": {"name": folder, "base": self.base},
                "adapter": {"kind": self.kind},
                "data": {"max_source_tokens": self.source, "max_target_tokens": self.target},
                "train": train,
            }
        )

    @property
    def words(self) -> str:
        model = self.model.rpartition("-")[2]
        extra = [str(name) if value is True else str(value) for name, value in self.options]
        base = [f"{self.base} base"] if self.base != "auto" else []
        return ", ".join([f"{model} {self.kind} {self.precision}", *base, *extra])

    @property
    def shape(self) -> str:
        return f"{self.batch} x {self.source}/{self.target}"


PLAIN = (("kernels", "plain"),)
AGAIN = (("checkpointing", True),)
PARTS = (("micro_batch", 2),)
CASES = (
    PlanCase(SMALL, "lora", "bf16", 4, 256, 32, calibrates=True),
    PlanCase(SMALL, "full", "fp32", 2, 128, 32, calibrates=True),
    PlanCase("nano", "lora", "fp32", 8, 128, 32, calibrates=True),
    PlanCase(SMALL, "lora", "fp32", 8, 128, 16, calibrates=True),
    PlanCase(SMALL, "lora", "bf16", 4, 256, 32, options=PLAIN, calibrates=True),
    PlanCase(SMALL, "full", "fp32", 2, 128, 32, options=PLAIN, calibrates=True),
    PlanCase("nano", "lora", "fp32", 8, 128, 32, options=PLAIN, calibrates=True),
    PlanCase(SMALL, "lora", "bf16", 8, 512, 64),
    PlanCase(SMALL, "lora", "bf16", 2, 512, 64),
    PlanCase(SMALL, "lora", "bf16", 8, 128, 64),
    PlanCase(SMALL, "lora", "fp32", 4, 256, 64),
    PlanCase(SMALL, "lora", "bf16", 8, 384, 48, base="int8"),
    PlanCase(SMALL, "lora", "bf16", 4, 256, 48, base="nf4"),
    PlanCase(SMALL, "lora", "bf16", 8, 512, 64, options=AGAIN),
    PlanCase(SMALL, "lora", "bf16", 8, 384, 48, options=PARTS),
    PlanCase(SMALL, "full", "bf16", 8, 256, 64),
    PlanCase(SMALL, "full", "fp32", 4, 256, 32),
    PlanCase(SMALL, "full", "bf16", 4, 384, 64, options=AGAIN),
    PlanCase("nano", "full", "fp32", 16, 256, 48),
    PlanCase("nano", "lora", "bf16", 32, 192, 48),
    PlanCase(SMALL, "lora", "bf16", 8, 256, 64, options=PLAIN),
    PlanCase(SMALL, "lora", "fp32", 4, 384, 32, options=PLAIN),
    PlanCase(SMALL, "full", "bf16", 4, 256, 64, options=PLAIN),
    PlanCase("nano", "full", "fp32", 8, 256, 32, options=PLAIN),
)


@dataclass(frozen=True)
class PlanRow:
    """A measured case and the planner's prediction."""

    case: PlanCase
    step_s: float
    peak_bytes: float
    measured: StepMeasurement

    @property
    def step_error(self) -> float:
        return self.step_s / self.measured.step_s - 1

    @property
    def memory_error(self) -> float:
        return self.peak_bytes / self.measured.peak_bytes - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=6, help="measured of each configuration")
    parser.add_argument("--only", nargs="*", type=int, metavar="N", help="rows of CASES, from 0")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--seconds", type=float, default=600.0, help="a configuration may take")
    parser.add_argument("--no-links", action="store_true", help="leave the transfers out")
    parser.add_argument("--json", help="write every figure to this file")


def run(args: argparse.Namespace) -> int:
    cases = [CASES[number] for number in args.only] if args.only else list(CASES)
    with tempfile.TemporaryDirectory(prefix="edgewise-plan-") as temporary:
        # Measure this machine's rates with the agent's probe, run as a program.
        probe = "workers.agent.profile.measure"
        command = [sys.executable, "-m", probe, str(args.threads), temporary]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise TrainingError(f"the machine cannot be measured: {done.stderr.strip()[-300:]}")
        profile: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        hardware = hardware_of(profile)
        samples = [(case, _sample(case, Path(temporary), args, hardware)) for case in cases]
    # Coefficients and the process's bytes for each set of kernels that has a calibration.
    calibration: dict[str, list[CalibrationSample]] = {}
    for case, sample in samples:
        if case.calibrates:
            calibration.setdefault(sample.method.kernels, []).append(sample)
    tuned = {name: fit(calibration[name], hardware) for name in sorted(calibration)}
    rows = [_row(case, sample, hardware, tuned) for case, sample in samples]
    name = profile.get("accelerator") or profile.get("cpu")
    print(f"{name}, {profile.get('threads')} threads, torch {profile.get('torch')}\n")
    print("\n".join(_table(rows)))
    print("\n".join(_coefficients(tuned)))
    if not args.no_links:
        # Measure transfers over emulated links with the agent's client, run as a program.
        command = [sys.executable, "-m", "benchmarks", "links"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.seconds)
        if done.returncode:
            raise TrainingError(f"links cannot be emulated: {done.stderr.strip()[-300:]}")
        print(f"\n{done.stdout.rstrip()}")
    if args.json:
        values = [{**asdict(row), "step_error": row.step_error} for row in rows]
        Path(args.json).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    return 0


def _sizes(case: PlanCase) -> Architecture:
    sizes = architecture_of(case.model)
    assert sizes is not None
    return sizes


def _sample(
    case: PlanCase, work: Path, args: argparse.Namespace, hardware: Hardware
) -> CalibrationSample:
    """Measure one case and describe it to the planner."""
    folder = random_model(_sizes(case), work / case.model.rpartition("/")[2])
    spec = replace(case.spec(str(folder), args.steps + 2), threads=args.threads)
    precision = hardware.precision_of(spec.train.precision)
    parts = -(-case.batch // spec.train.micro_batch)
    shape = BatchShape(min(case.batch, spec.train.micro_batch), case.source, case.target)
    print(f"{case.words}, {case.shape} …", file=sys.stderr, flush=True)
    weights, job = work / "global.safetensors", work / "spec.json"
    write_initial(spec, weights)
    job.write_text(json.dumps(spec.to_dict()), "utf-8")
    command = [sys.executable, "-m", "benchmarks.plan_run", str(job), str(weights), str(work)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=args.seconds)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no error output"]
        raise TrainingError(f"the measured process ended with {done.returncode}: {last[0]}")
    measured = StepMeasurement(**json.loads(done.stdout.splitlines()[-1]))
    method = Workload.of(spec, _sizes(case), precision, hardware.accelerator)
    return CalibrationSample(method, shape, parts, measured)


Tuned = dict[str, tuple[KernelCoefficients, float]]


def _row(case: PlanCase, sample: CalibrationSample, hardware: Hardware, tuned: Tuned) -> PlanRow:
    method, runtime = sample.method, float(sample.measured.imported)
    if method.kernels in tuned:
        coefficients, runtime = tuned[method.kernels]
        method = replace(method, coefficients=coefficients)
    prediction = step(method, hardware, sample.work, None, sample.parts)
    assert prediction is not None
    peak_memory = memory(method, sample.work, hardware.accelerator, runtime)
    return PlanRow(case, prediction.seconds, peak_memory.peak, sample.measured)


def _table(rows: Sequence[PlanRow]) -> Iterator[str]:
    yield (
        "| configuration | batch | step, predicted | measured | error "
        "| peak, predicted | measured | error |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        name = f"{row.case.words}{' (calibrates)' if row.case.calibrates else ''}"
        yield (
            f"| {name} | {row.case.shape} | {row.step_s:.3g} s | {row.measured.step_s:.3g} s | "
            f"{row.step_error:+.0%} | {row.peak_bytes / 1e9:.2f} GB | "
            f"{row.measured.peak_bytes / 1e9:.2f} GB | {row.memory_error:+.0%} |"
        )
    judged = [row for row in rows if not row.case.calibrates]
    if judged:
        yield ""
        yield _summary("step", [row.step_error for row in judged])
        yield _summary("memory", [row.memory_error for row in judged])


def _summary(name: str, errors: Sequence[float]) -> str:
    limit, sizes = LIMITS[name], [abs(error) for error in errors]
    inside = sum(size <= limit for size in sizes)
    return (
        f"{name}: {inside} of {len(sizes)} configurations that calibrate nothing are within "
        f"{limit:.0%}; median error {statistics.median(sizes):.0%}, largest {max(sizes):.0%}."
    )


def _coefficients(tuned: Tuned) -> Iterator[str]:
    for name, (coefficients, runtime) in tuned.items():
        yield (
            f"Fitted, {name}: product {coefficients.product:.3g}, "
            f"passes {coefficients.passes:.3g}, "
            f"call_s {coefficients.call_s:.2g}, activations {coefficients.activations:.3g}, "
            f"runtime {runtime / 1e6:.0f} MB (fedcore/plan/cost/coefficients.py)."
        )
