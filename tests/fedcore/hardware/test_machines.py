"""Data-sheet rows are plausible, sourced and recognised from a device's strings."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fedcore.hardware.machines import MACHINES, recognise


@pytest.mark.parametrize("name", MACHINES)
def test_machine_row_is_complete_and_consistent(name: str) -> None:
    row = MACHINES[name]
    assert row.id == name
    assert {field.name for field in fields(row)} >= {"source", "idle_watts", "full_watts"}
    assert "http" in row.source
    assert all(value > 0 for value in row.peak_flops.values())
    assert row.memory_bandwidth_bps > 1e9
    assert row.memory_bytes > 2**30
    assert row.full_watts is None or row.full_watts > (row.idle_watts or 0)
    fp32 = row.peak_flops["fp32"]
    assert all(row.peak_flops.get(half, fp32) >= fp32 for half in ("bf16", "fp16"))
    assert ("bf16" in row.peak_flops) <= (row.peak_flops.get("fp16", 0) > 0)


def test_peaks_are_dense() -> None:
    # methods.md section 0: AGX Orin about 42.5 TFLOP/s, A100 312 TFLOP/s dense.
    assert MACHINES["jetson-agx-orin"].peak_flops["bf16"] == 42.5e12
    assert MACHINES["a100"].peak_flops["bf16"] == 312e12


@pytest.mark.parametrize(
    ("strings", "row"),
    [
        ({"kind": "Raspberry Pi 4 Model B Rev 1.4"}, "raspberry-pi-4"),
        ({"kind": "Raspberry Pi 5 Model B Rev 1.0", "cpu": "Cortex-A76"}, "raspberry-pi-5"),
        ({"kind": "NVIDIA Jetson Nano Developer Kit"}, "jetson-nano"),
        ({"kind": "NVIDIA Jetson Xavier NX Developer Kit"}, "jetson-xavier-nx"),
        ({"kind": "NVIDIA Jetson Orin Nano Developer Kit", "accelerator": "Orin"},
         "jetson-orin-nano"),
        ({"kind": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"},
         "jetson-orin-nano-super"),
        ({"kind": "NVIDIA Orin NX Developer Kit", "accelerator": "Orin"}, "jetson-orin-nx"),
        ({"kind": "NVIDIA Jetson AGX Orin Developer Kit"}, "jetson-agx-orin"),
        ({"cpu": "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.40GHz"}, "laptop-x86"),
        ({"accelerator": "NVIDIA GeForce RTX 3060"}, "rtx-3060"),
        ({"accelerator": "NVIDIA GeForce RTX 4090"}, "rtx-4090"),
        ({"accelerator": "NVIDIA L4"}, "l4"),
        ({"accelerator": "NVIDIA A100-SXM4-40GB"}, "a100-40gb"),
        ({"accelerator": "NVIDIA A100-SXM4-80GB"}, "a100"),
        ({"accelerator": "NVIDIA H100 80GB HBM3"}, "h100"),
        ({"accelerator": "NVIDIA H200", "cpu": "AMD EPYC"}, "h200"),
    ],
)  # fmt: skip
def test_recognised(strings: dict[str, str], row: str) -> None:
    machine = recognise(strings)
    assert machine is not None
    assert machine.id == row


@pytest.mark.parametrize(
    "strings",
    [
        {},
        {"kind": None, "cpu": 3, "accelerator": ["NVIDIA L4"]},
        {"cpu": "AMD EPYC"},
        {"accelerator": "NVIDIA L40S"},
        {"accelerator": "NVIDIA GeForce RTX 4090 Laptop GPU"},
        {"accelerator": "NVIDIA GeForce RTX 4090 D"},
        {"accelerator": "NVIDIA GeForce RTX 3060 Ti"},
        {"accelerator": "NVIDIA H100 PCIe"},
        {"accelerator": "NVIDIA H200 MIG 1g.18gb"},
        {"cpu": "11th Gen Intel(R) Core(TM) i5-1135G7", "accelerator": "NVIDIA GeForce MX450"},
    ],
)
def test_unknown_hardware_is_not_guessed(strings: dict[str, object]) -> None:
    assert recognise(strings) is None
