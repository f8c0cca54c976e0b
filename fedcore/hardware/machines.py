"""Data-sheet figures of common boards and cards, used until a device is measured.

Peaks are dense (no structured sparsity, CPU or GPU alone) and for the given precision; fp32 is
without TF32, which torch leaves off. A measured figure always takes precedence, and hardware that
is not in the table is never guessed. If a data sheet gives sparse INT8 only, the dense bf16 of the
same tensor cores is a quarter of it. Watts are those of the whole module or card; ``idle_watts`` is
None if its maker publishes none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GB = 1e9
TERA = 1e12
GIB = 2.0**30


@dataclass(frozen=True)
class MachineProfile:
    """``peak_flops``: FLOP/s by precision, without those that the hardware lacks."""

    id: str
    name: str
    peak_flops: Mapping[str, float]
    memory_bandwidth_bps: float
    memory_bytes: float
    idle_watts: float | None
    full_watts: float | None
    source: str


def _row(
    key: str,
    name: str,
    tflops: Mapping[str, float],
    memory: tuple[float, float],
    watts: tuple[float | None, float],
    source: str,
) -> MachineProfile:
    """``memory``: GB/s and GiB; ``watts``: idle and at full load."""
    peaks = {precision: value * TERA for precision, value in tflops.items()}
    return MachineProfile(
        key, name, peaks, memory[0] * GB, memory[1] * GIB, watts[0], watts[1], source
    )


_PI = "https://www.raspberrypi.com/documentation/computers/raspberry-pi.html"
_PI_NEWS = "https://www.raspberrypi.com/news/introducing-raspberry-pi-5/"
_JETSON = "https://developer.nvidia.com/embedded/jetson-modules"
_AMPERE = "https://images.nvidia.com/aem-dam/en-zz/Solutions/geforce/ampere/pdf/NVIDIA-ampere-GA102-GPU-Architecture-Whitepaper-V1.pdf"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"

_ROWS = (
    # 4 Cortex-A72 at 1.5 GHz, 8 FLOP a cycle; LPDDR4-3200, 32 bits; 0.6 A at 5 V, peak 8 W.
    _row(
        "raspberry-pi-4", "Raspberry Pi 4 (8 GB)",
        {"fp32": 0.048}, (12.8, 8), (3.0, 8.0),
        f"clock, memory, 0.6 A bare board: {_PI}; peak 8 W: {_PI_NEWS}; 8 FLOP a cycle: Arm "
        "Cortex-A72 Software Optimization Guide",
    ),
    # 4 Cortex-A76 at 2.4 GHz, 16 FLOP a cycle; LPDDR4X-4267, 32 bits; 0.8 A at 5 V, peak 12 W.
    _row(
        "raspberry-pi-5", "Raspberry Pi 5 (8 GB)",
        {"fp32": 0.1536, "fp16": 0.3072}, (17.1, 8), (4.0, 12.0),
        f"clock, memory, 0.8 A bare board: {_PI}; peak 12 W: {_PI_NEWS}; 16 FLOP a cycle: Arm "
        "Cortex-A76 Software Optimization Guide",
    ),
    _row(
        "jetson-nano", "NVIDIA Jetson Nano (4 GB)",
        {"fp32": 0.236, "fp16": 0.472}, (25.6, 4), (None, 10.0),
        f"Jetson Nano module data sheet; {_JETSON}",
    ),
    # 384 Volta cores and 48 tensor cores at 1.1 GHz; no bf16 before Ampere.
    _row(
        "jetson-xavier-nx", "NVIDIA Jetson Xavier NX (8 GB)",
        {"fp32": 0.845, "fp16": 6.76}, (59.7, 8), (None, 20.0),
        f"Jetson Xavier NX module data sheet; {_JETSON}",
    ),
    # 1,024 Ampere cores at 625 MHz; 40 TOPS sparse INT8.
    _row(
        "jetson-orin-nano", "NVIDIA Jetson Orin Nano (8 GB)",
        {"fp32": 1.28, "fp16": 10.0, "bf16": 10.0}, (68.0, 8), (None, 15.0),
        f"Jetson Orin Nano data sheet DS-11105-001; {_JETSON}",
    ),
    # The same module with its clocks raised: 1,024 cores at 1.02 GHz, 67 TOPS sparse INT8.
    _row(
        "jetson-orin-nano-super", "NVIDIA Jetson Orin Nano Super (8 GB)",
        {"fp32": 2.09, "fp16": 16.7, "bf16": 16.7}, (102.0, 8), (None, 25.0),
        f"Jetson Orin Nano Super Developer Kit data sheet; {_JETSON}",
    ),
    # 1,024 Ampere cores at 918 MHz; 60 of the 100 TOPS sparse INT8 are the GPU's.
    _row(
        "jetson-orin-nx", "NVIDIA Jetson Orin NX (16 GB)",
        {"fp32": 1.88, "fp16": 15.0, "bf16": 15.0}, (102.4, 16), (None, 25.0),
        f"Jetson Orin NX data sheet DS-10712-001; {_JETSON}",
    ),
    # 2,048 Ampere cores at 1.3 GHz; 170 of the 275 TOPS sparse INT8 are the GPU's.
    _row(
        "jetson-agx-orin", "NVIDIA Jetson AGX Orin (64 GB)",
        {"fp32": 5.3, "fp16": 42.5, "bf16": 42.5}, (204.8, 64), (None, 60.0),
        f"Jetson AGX Orin data sheet DS-10662-001 and technical brief; {_JETSON}",
    ),
    # 4 cores at 2.4 GHz, one 512-bit FMA a cycle (32 FLOP); two channels of DDR4-3200; 28 W.
    _row(
        "laptop-x86", "x86 laptop (Core i5-1135G7, 16 GB)",
        {"fp32": 0.307}, (51.2, 16), (None, 28.0),
        "https://www.intel.com/content/www/us/en/products/sku/208658/specifications.html",
    ),
    _row(
        "rtx-3060", "NVIDIA GeForce RTX 3060 (12 GB)",
        {"fp32": 12.7, "fp16": 25.5, "bf16": 25.5}, (360.0, 12), (None, 170.0),
        "https://www.nvidia.com/en-us/geforce/graphics-cards/30-series/rtx-3060-3060ti/; tensor "
        f"rate twice fp32 with fp32 sums: {_AMPERE}",
    ),
    _row(
        "rtx-4090", "NVIDIA GeForce RTX 4090 (24 GB)",
        {"fp32": 82.6, "fp16": 165.2, "bf16": 165.2}, (1008.0, 24), (None, 450.0),
        _ADA,
    ),
    _row(
        "l4", "NVIDIA L4 (24 GB)",
        {"fp32": 30.3, "fp16": 121.0, "bf16": 121.0}, (300.0, 24), (None, 72.0),
        "https://www.nvidia.com/en-us/data-center/l4/ (tensor rates there are sparse: halved)",
    ),
    _row(
        "a100-40gb", "NVIDIA A100 (40 GB, SXM)",
        {"fp32": 19.5, "fp16": 312.0, "bf16": 312.0}, (1555.0, 40), (None, 400.0),
        "https://www.nvidia.com/en-us/data-center/a100/",
    ),
    _row(
        "a100", "NVIDIA A100 (80 GB, SXM)",
        {"fp32": 19.5, "fp16": 312.0, "bf16": 312.0}, (2039.0, 80), (None, 400.0),
        "https://www.nvidia.com/en-us/data-center/a100/",
    ),
    _row(
        "h100", "NVIDIA H100 (80 GB, SXM)",
        {"fp32": 67.0, "fp16": 989.4, "bf16": 989.4}, (3350.0, 80), (None, 700.0),
        "https://www.nvidia.com/en-us/data-center/h100/ (tensor rates there are sparse: halved)",
    ),
    _row(
        "h200", "NVIDIA H200 (141 GB, SXM)",
        {"fp32": 67.0, "fp16": 989.4, "bf16": 989.4}, (4800.0, 131.3), (None, 700.0),
        "https://www.nvidia.com/en-us/data-center/h200/ (tensor rates there are sparse: halved)",
    ),
)  # fmt: skip
MACHINES: Mapping[str, MachineProfile] = {row.id: row for row in _ROWS}

# Patterns of the strings that devices report; the first match counts.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"raspberry pi 4\b", "raspberry-pi-4"),
    (r"raspberry pi 5\b", "raspberry-pi-5"),
    (r"jetson nano\b", "jetson-nano"),
    (r"xavier nx\b", "jetson-xavier-nx"),
    (r"orin nano\b.*\bsuper\b", "jetson-orin-nano-super"),
    (r"orin nano\b", "jetson-orin-nano"),
    (r"orin nx\b", "jetson-orin-nx"),
    (r"agx orin\b", "jetson-agx-orin"),
    (r"\bh200\b", "h200"),
    (r"\bh100 80gb hbm3", "h100"),
    (r"\ba100-sxm4-80gb", "a100"),
    (r"\ba100-sxm4-40gb", "a100-40gb"),
    (r"\bl4\b", "l4"),
    (r"\brtx 4090(?! laptop| d\b)", "rtx-4090"),
    (r"\brtx 3060(?! ti| laptop)", "rtx-3060"),
)
_CPUS: tuple[tuple[str, str], ...] = ((r"\bi5-1135g7\b", "laptop-x86"),)
_SLICE = re.compile(r"\bmig\b|\bvgpu\b|\bgrid\b")


def recognise(profile: Mapping[str, Any]) -> MachineProfile | None:
    """The row that a device's strings name, else None; also None for a slice of a card (MIG)."""
    board = " ".join(_text(profile, key) for key in ("kind", "accelerator"))
    if _SLICE.search(board):
        return None
    machine = _find(board, _PATTERNS)
    if machine or _text(profile, "accelerator"):
        return machine
    return _find(_text(profile, "cpu"), _CPUS)  # the processor counts only without an accelerator


def _text(profile: Mapping[str, Any], key: str) -> str:
    value = profile.get(key)
    return value.lower() if isinstance(value, str) else ""


def _find(text: str, patterns: tuple[tuple[str, str], ...]) -> MachineProfile | None:
    names = (name for pattern, name in patterns if re.search(pattern, text))
    return next((MACHINES[name] for name in names), None)
