"""The bench of the planner: cases, calibration and table; no time is asserted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import plan as bench
from benchmarks.plan_fit import CalibrationSample, fit
from benchmarks.plan_run import StepMeasurement, measure
from fedcore.architecture.sizes import KNOWN, architecture_of
from fedcore.hardware.profile import Hardware
from fedcore.model.initial import write_initial
from fedcore.plan.cost.coefficients import KERNEL_COEFFICIENTS
from fedcore.plan.cost.memory import memory
from fedcore.plan.cost.step_time import step
from fedcore.plan.cost.workload import BatchShape, Workload

HARDWARE = Hardware({"fp32": 1e11, "bf16": 4e11}, 2e10, 16e9)
SMALL = KNOWN["google/flan-t5-small"]


def test_twelve_cases_calibrate_nothing() -> None:
    judged = [case for case in bench.CASES if not case.calibrates]
    fitted = [case for case in bench.CASES if case.calibrates]
    assert len(judged) >= 12
    assert len(set(bench.CASES)) == len(bench.CASES)
    assert not {replace(case, calibrates=False) for case in fitted} & set(judged)
    assert {case.spec("nano", 3).train.kernels for case in fitted} == set(KERNEL_COEFFICIENTS)
    for case in bench.CASES:
        spec = case.spec("nano", 3)
        assert spec.train.batch_size == case.batch
        assert architecture_of(case.model) is not None


def sample(
    case: bench.PlanCase, known: Workload | None = None, runtime: float = 6e8
) -> CalibrationSample:
    """Measurements of a machine that has exactly these coefficients."""
    spec = case.spec("nano", 3)
    method = Workload.of(spec, SMALL, case.precision)
    true = replace(method, coefficients=known.coefficients) if known else method
    work = BatchShape(case.batch, case.source, case.target)
    actual = step(true, HARDWARE, work)
    assert actual is not None
    peak = memory(true, work, False, runtime).peak
    measured = StepMeasurement(actual.seconds, 3, round(runtime), round(peak))
    return CalibrationSample(method, work, 1, measured)


def test_calibration_recovers_coefficients() -> None:
    cases = [case for case in bench.CASES if case.calibrates and not case.options]
    others = [case for case in bench.CASES if not case.calibrates and case.base == "auto"]
    true = replace(
        KERNEL_COEFFICIENTS["fast"], product=0.4, passes=2.5, call_s=2e-5, activations=1.6
    )
    method = replace(sample(cases[0]).method, coefficients=true)
    tuned, runtime = fit([sample(case, method) for case in cases], HARDWARE)
    assert runtime == pytest.approx(6e8, rel=0.2)
    for case in (case for case in others if not case.options):
        one = sample(case, method)
        output = step(replace(one.method, coefficients=tuned), HARDWARE, one.work)
        memory_use = memory(replace(one.method, coefficients=tuned), one.work, False, runtime)
        assert output is not None
        assert output.seconds == pytest.approx(one.measured.step_s, rel=0.25), case
        assert memory_use.peak == pytest.approx(one.measured.peak_bytes, rel=0.15), case


def test_coefficients_stay_positive() -> None:
    case = bench.CASES[0]
    strange = replace(sample(case).measured, step_s=1e-9, peak_bytes=1)
    tuned, runtime = fit([replace(sample(case), measured=strange)], HARDWARE)
    assert min(tuned.product, tuned.passes, tuned.call_s, tuned.activations, runtime) > 0


def test_table_marks_calibrating_cases() -> None:
    measured = StepMeasurement(1.25, 3, 5e8, 2e9)
    rows = [bench.PlanRow(case, 1.0, 2e9, measured) for case in bench.CASES]
    lines = list(bench._table(rows))
    marked = [line for line in lines if "(calibrates)" in line]
    assert len(marked) == sum(case.calibrates for case in bench.CASES)
    assert "-20%" in marked[0]
    judged = len(bench.CASES) - len(marked)
    assert lines[-2].startswith(f"step: {judged} of {judged} configurations")


def test_plan_case_is_trained_and_measured(tmp_path: Path) -> None:
    case = bench.PlanCase("nano", "lora", "fp32", 2, 16, 8)
    spec = case.spec("nano", 4)
    write_initial(spec, tmp_path / "global.safetensors")
    actual = measure(spec, tmp_path / "global.safetensors", tmp_path)
    assert actual.steps == 2
    assert actual.step_s > 0
    assert actual.peak_bytes >= actual.imported > 1e8
