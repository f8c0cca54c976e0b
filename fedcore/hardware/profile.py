"""What is known of a device's hardware: measured where it was, from a data sheet where it was not.

A profile is what a device reports (``workers.agent.profile.measure``), or a row of a fleet file.
Figures that cannot be (negative, not a number) are left out and told in ``faults``, never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedcore.hardware.machines import MACHINES, MachineProfile, recognise

LEAST, MOST = 1e-3, 1e21  # no figure of a machine lies outside


@dataclass(frozen=True)
class Kernel:
    """A product at a shape of the model, as it was measured."""

    name: str
    precision: str
    flops_per_s: float
    flops_per_byte: float


@dataclass(frozen=True)
class Hardware:
    """None where nothing is known. ``measured`` names the figures that no data sheet gave.

    ``memory_bytes`` is what training may use: the accelerator's where there is one.
    """

    peak_flops: Mapping[str, float] = field(default_factory=dict)
    bandwidth_bps: float | None = None
    memory_bytes: float | None = None
    idle_watts: float | None = None
    full_watts: float | None = None
    kernels: tuple[Kernel, ...] = ()
    accelerator: bool = False
    board: str = ""
    quicker: str = ""  # the precision that the device measured to be the faster one
    measured: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()

    def precision_of(self, wanted: str) -> str:
        """What ``train.precision`` comes to here: auto is bf16 where it is faster."""
        if wanted != "auto":
            return wanted
        if self.quicker in self.peak_flops:
            return self.quicker
        fp32, bf16 = self.peak_flops.get("fp32", 0.0), self.peak_flops.get("bf16", 0.0)
        return "bf16" if bf16 > fp32 else "fp32"


def hardware_of(profile: Mapping[str, Any]) -> Hardware:
    """Read a profile; what it lacks is filled in from the board it is recognised as."""
    reader = _Reader(profile)
    board = _board(profile)
    peaks = reader.peaks()
    accelerator = bool(profile.get("accelerator"))
    keys = ("accelerator_memory_bytes", "memory_bytes")
    memory = next((found for key in keys if (found := reader.number(key))), None)
    read = {
        "bandwidth_bps": reader.number("memory_bandwidth_bps"),
        "memory_bytes": memory,
        "idle_watts": reader.number("idle_watts"),
        "full_watts": reader.number("full_watts"),
    }
    measured = {key for key, value in read.items() if value} | ({"peak_flops"} if peaks else set())
    sheet = _sheet(board)
    return Hardware(
        peak_flops=peaks or dict(board.peak_flops if board else {}),
        kernels=reader.kernels(),
        accelerator=accelerator or _is_cuda(board),
        board=board.id if board else "",
        quicker=str(profile.get("precision", "")),
        measured=frozenset(measured),
        faults=tuple(reader.faults),
        **{key: value or sheet.get(key) for key, value in read.items()},
    )


def _board(profile: Mapping[str, Any]) -> MachineProfile | None:
    named = profile.get("board")
    return MACHINES.get(named) if isinstance(named, str) and named else recognise(profile)


def _sheet(board: MachineProfile | None) -> dict[str, float | None]:
    if board is None:
        return {}
    return {
        "bandwidth_bps": board.memory_bandwidth_bps,
        "memory_bytes": board.memory_bytes,
        "idle_watts": board.idle_watts,
        "full_watts": board.full_watts,
    }


def _is_cuda(board: MachineProfile | None) -> bool:
    return board is not None and "NVIDIA" in board.name


class _Reader:
    """Takes figures out of a profile and notes those that cannot be."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self.profile = profile
        self.faults: list[str] = []

    def number(self, key: str) -> float | None:
        return self._positive(self.profile.get(key), key)

    def _positive(self, value: Any, name: str) -> float | None:
        """The figure; None for what is missing or 0 (the hardware lacks it)."""
        if value is None or value == 0:
            return None
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
        if right and LEAST <= value <= MOST:
            return float(value)
        self.faults.append(f"{name} cannot be {value!r:.40}; measure the device again")
        return None

    def peaks(self) -> dict[str, float]:
        peaks = self.profile.get("peak_flops")
        read = peaks.items() if isinstance(peaks, Mapping) else ()
        known = {str(name): self._positive(value, f"peak_flops.{name}") for name, value in read}
        return {name: value for name, value in known.items() if value}

    def kernels(self) -> tuple[Kernel, ...]:
        rows = self.profile.get("kernels")
        read = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
        return tuple(kernel for row in read if (kernel := self._kernel(row)))

    def _kernel(self, row: Mapping[str, Any]) -> Kernel | None:
        name = str(row.get("name", ""))
        rate = self._positive(row.get("flops_per_s"), f"kernel {name}: flops_per_s")
        intensity = self._positive(row.get("flops_per_byte"), f"kernel {name}: flops_per_byte")
        if rate is None or intensity is None:
            return None
        return Kernel(name, str(row.get("precision", "fp32")), rate, intensity)
