"""A device's hardware: measured figures, completed from a data sheet.

A profile is what a device reports (``workers.agent.profile``) or a row of a fleet file. Impossible
figures (negative, not a number) are ignored and listed in ``faults``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedcore.hardware.machines import MACHINES, recognise

LEAST, MOST = 1e-3, 1e21  # range of plausible figures


@dataclass(frozen=True)
class Kernel:
    """A measured matrix product of one of the model's shapes."""

    name: str
    precision: str
    flops_per_s: float
    flops_per_byte: float


@dataclass(frozen=True)
class Hardware:
    """Figures of a device; None: not known. ``measured``: names of those not from a data sheet.

    ``memory_bytes``: the memory that training uses, of the accelerator if there is one.
    """

    peak_flops: Mapping[str, float] = field(default_factory=dict)
    bandwidth_bps: float | None = None
    memory_bytes: float | None = None
    idle_watts: float | None = None
    full_watts: float | None = None
    kernels: tuple[Kernel, ...] = ()
    accelerator: bool = False
    board: str = ""
    quicker: str = ""  # the faster precision by the device's own measurement
    measured: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()

    def precision_of(self, option: str) -> str:
        """The precision for an option ``train.precision``: auto is bf16 if that is faster."""
        if option != "auto":
            return option
        if self.quicker in self.peak_flops:
            return self.quicker
        fp32, bf16 = self.peak_flops.get("fp32", 0.0), self.peak_flops.get("bf16", 0.0)
        return "bf16" if bf16 > fp32 else "fp32"


def hardware_of(profile: Mapping[str, Any]) -> Hardware:
    """Read a profile. Missing figures come from the data sheet of the recognised board."""
    reader = _ProfileReader(profile)
    name = profile.get("board")
    has_name = isinstance(name, str) and bool(name)
    board = MACHINES.get(str(name)) if has_name else recognise(profile)
    peaks = reader.peaks()
    accelerator = bool(profile.get("accelerator"))
    keys = ("accelerator_memory_bytes", "memory_bytes")
    memory = next((value for key in keys if (value := reader.number(key))), None)
    read = {
        "bandwidth_bps": reader.number("memory_bandwidth_bps"),
        "memory_bytes": memory,
        "idle_watts": reader.number("idle_watts"),
        "full_watts": reader.number("full_watts"),
    }
    measured = {key for key, value in read.items() if value} | ({"peak_flops"} if peaks else set())
    sheet: dict[str, float | None] = {}
    if board is not None:
        sheet = {
            "bandwidth_bps": board.memory_bandwidth_bps,
            "memory_bytes": board.memory_bytes,
            "idle_watts": board.idle_watts,
            "full_watts": board.full_watts,
        }
    return Hardware(
        peak_flops=peaks or dict(board.peak_flops if board else {}),
        kernels=reader.kernels(),
        accelerator=accelerator or (board is not None and "NVIDIA" in board.name),
        board=board.id if board else "",
        quicker=str(profile.get("precision", "")),
        measured=frozenset(measured),
        faults=tuple(reader.faults),
        **{key: value or sheet.get(key) for key, value in read.items()},
    )


class _ProfileReader:
    """Reads figures from a profile and lists the impossible ones in ``faults``."""

    def __init__(self, profile: Mapping[str, Any]) -> None:
        self.profile = profile
        self.faults: list[str] = []

    def number(self, key: str) -> float | None:
        return self._positive(self.profile.get(key), key)

    def _positive(self, value: Any, name: str) -> float | None:
        """The figure; None if it is missing or 0 (the hardware lacks it)."""
        if value is None or value == 0:
            return None
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and LEAST <= value <= MOST:
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
        kernels = []
        for row in rows if isinstance(rows, list) else []:
            if not isinstance(row, Mapping):
                continue
            name = str(row.get("name", ""))
            rate = self._positive(row.get("flops_per_s"), f"kernel {name}: flops_per_s")
            intensity = self._positive(row.get("flops_per_byte"), f"kernel {name}: flops_per_byte")
            if rate is not None and intensity is not None:
                kernels.append(Kernel(name, str(row.get("precision", "fp32")), rate, intensity))
        return tuple(kernels)
