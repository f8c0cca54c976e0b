"""Hardware figures, the roofline, and the verdict."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedcore.hardware.machines import MACHINES
from fedcore.hardware.profile import hardware_of
from fedcore.hardware.roofline import Roofline, roofline, verdict

MEASURED: dict[str, Any] = {
    "kind": "NVIDIA Jetson AGX Orin Developer Kit",
    "accelerator": "Orin",
    "memory_bytes": 32e9,
    "accelerator_memory_bytes": 30e9,
    "peak_flops": {"fp32": 4e12, "bf16": 3e13},
    "memory_bandwidth_bps": 1.5e11,
    "kernels": [
        {"name": "linear 512x1024", "precision": "bf16", "flops_per_s": 2e13, "flops_per_byte": 99},
        {"name": "linear 512x512", "precision": "fp32", "flops_per_s": 2e12, "flops_per_byte": 50},
        {"name": "broken", "precision": "bf16", "flops_per_s": -1, "flops_per_byte": 50},
    ],
}


def test_measured_figures_override_the_data_sheet() -> None:
    hardware = hardware_of(MEASURED)
    assert (hardware.board, hardware.memory_bytes) == ("jetson-agx-orin", 30e9)
    assert hardware.peak_flops == {"fp32": 4e12, "bf16": 3e13}
    assert hardware.full_watts == MACHINES["jetson-agx-orin"].full_watts
    assert hardware.measured == {"peak_flops", "bandwidth_bps", "memory_bytes"}
    assert hardware.faults == ("kernel broken: flops_per_s cannot be -1; measure the device again",)


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "8 GB", True, [8]])
def test_impossible_figure_is_reported_and_ignored(bad: object) -> None:
    hardware = hardware_of({"memory_bytes": bad, "peak_flops": {"fp32": bad}})
    assert hardware.memory_bytes is None
    assert hardware.peak_flops == {}
    assert len(hardware.faults) == 2


def test_unknown_hardware_has_no_figures() -> None:
    assert hardware_of({"cpu": "AMD EPYC"}).peak_flops == {}
    assert hardware_of({"kernels": "none", "peak_flops": 3, "board": 7}).kernels == ()


def test_the_precision_of_auto() -> None:
    assert hardware_of(MEASURED).precision_of("auto") == "bf16"
    assert hardware_of({"peak_flops": {"fp32": 2e9, "bf16": 1e9}}).precision_of("auto") == "fp32"
    assert hardware_of(MEASURED).precision_of("fp32") == "fp32"
    assert hardware_of({**MEASURED, "precision": "fp32"}).precision_of("auto") == "fp32"
    assert hardware_of({**MEASURED, "precision": "int3"}).precision_of("auto") == "bf16"


def test_roofline_has_ridge_and_points() -> None:
    roof = roofline(MEASURED)
    assert (roof.precision, roof.ridge, roof.measured) == ("bf16", 200.0, True)
    assert [point.name for point in roof.points] == ["linear 512x1024"]
    assert roof.ceiling(10) == 1.5e12
    assert roof.ceiling(1000) == 3e13
    assert roofline({}, "fp32").ridge is None
    assert not roofline({"kind": "Raspberry Pi 5 Model B"}).measured


STEP = {"load_s": 0.1, "forward_s": 1.0, "loss_s": 0.1, "backward_s": 2.0, "optimizer_s": 0.1}


@pytest.mark.parametrize(
    ("seconds", "intensity", "bound", "words"),
    [
        ({}, None, "unknown", "measured yet"),
        (STEP | {"upload_s": 9.0, "download_s": 1.0}, 50.0, "network", "most of it on the upload"),
        (STEP | {"upload_s": 1.0, "download_s": 9.0}, 50.0, "network", "wire.downlink"),
        (STEP | {"load_s": 8.0}, 50.0, "input", "reading the data"),
        (STEP, 50.0, "bandwidth", "bandwidth limits"),
        (STEP, 500.0, "compute", "arithmetic limits"),
        (STEP, None, "unknown", "not known"),
        ({"forward_s": -5.0, "load_s": math.nan}, 50.0, "unknown", "measured yet"),
    ],
)
def test_the_verdict(
    seconds: dict[str, float], intensity: float | None, bound: str, words: str
) -> None:
    result = verdict(roofline(MEASURED), seconds, intensity)
    assert result.bound == bound
    assert words in result.text + result.advice
    assert result.advice


def test_bf16_is_suggested_if_unused() -> None:
    roof = Roofline("fp32", 1e12, 1e11)
    assert verdict(roof, STEP, 100.0).advice.startswith("bf16")
