"""Devices from a fleet file or a request: ``[[device]]`` tables; all errors are reported together.

``machine``: id of a row of ``fedcore.hardware.machines``, or a table of measured figures with the
keys of a device profile. ``link``: name of a row of ``fedcore.hardware.links``, or a table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.hardware.links import LINKS, Link
from fedcore.hardware.machines import MACHINES
from fedcore.hardware.profile import Hardware, hardware_of
from fedcore.plan.cost.candidate import Candidate
from fedcore.spec.job import JobSpec

KEYS = ("name", "machine", "link", "examples", "lengths", "longest", "mfu")
PROFILE_KEYS = (
    "kind", "cpu", "accelerator", "board", "peak_flops", "memory_bandwidth_bps", "memory_bytes",
    "accelerator_memory_bytes", "idle_watts", "full_watts", "kernels", "precision",
)  # fmt: skip
LINK_KEYS = tuple(item.name for item in fields(Link))
LARGEST = 1_000  # devices of one request


def read_fleet(path: Path, spec: JobSpec) -> list[Candidate]:
    """The devices of a .toml or .json file. Raises SpecError with every error."""
    table = read_table(path)
    rows = table.get("device")
    extra = [
        Fault(f"{path.name}: {key}", "unknown; known: device") for key in table if key != "device"
    ]
    if not isinstance(rows, list) or extra:
        missing = [] if isinstance(rows, list) else [Fault(path.name, "give [[device]] tables")]
        raise SpecError([*extra, *missing])
    return fleet_from(rows, spec)


def read_table(path: Path) -> dict[str, Any]:
    """A TOML or JSON file as a table. Raises SpecError."""
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            table = json.loads(text)
        else:
            import tomllib

            table = tomllib.loads(text)
    except ModuleNotFoundError as error:
        fault = Fault(str(path), "TOML needs Python 3.11; write the same as .json")
        raise SpecError([fault]) from error
    except (OSError, ValueError) as error:
        raise SpecError([Fault(str(path), f"cannot be read: {error}")]) from error
    if not isinstance(table, dict):
        raise SpecError([Fault(str(path), "give a table, not a list or a value")])
    return table


def fleet_from(rows: Sequence[Any], spec: JobSpec) -> list[Candidate]:
    """The devices of a list of tables. Missing lengths are the longest that the job allows."""
    if not rows or len(rows) > LARGEST:
        raise SpecError([Fault("devices", f"give 1 to {LARGEST} devices, not {len(rows)}")])
    faults: list[Fault] = []
    devices = [
        _DeviceRow(row, number, faults).candidate(spec) for number, row in enumerate(rows, 1)
    ]
    names = [device.name for device in devices if device]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.append(Fault("devices", f"{name!r} is there twice; give each its own name"))
    if faults:
        raise SpecError(faults)
    return [device for device in devices if device]


class _DeviceRow:
    """Reads one device and collects its errors in ``faults``."""

    def __init__(self, row: Any, number: int, faults: list[Fault]) -> None:
        self.row: Mapping[str, Any] = row if isinstance(row, Mapping) else {}
        self.where, self.faults = f"device {number}", faults
        if not isinstance(row, Mapping):
            self._fault("", "give a table")
        self.number = number
        self._unknown(self.row, KEYS, "")

    def candidate(self, spec: JobSpec) -> Candidate | None:
        before = len(self.faults)
        longest_allowed = (spec.data.max_source_tokens, spec.data.max_target_tokens)
        longest = self._pair("longest", longest_allowed)
        source, target = self._pair("lengths", longest)
        name = self.row.get("name", f"device-{self.number}")
        if not isinstance(name, str) or not 0 < len(name) <= 100:
            self._fault("name", f"give a text of 1 to 100 characters, not {name!r:.40}")
        examples: Any = self.row.get("examples")
        if isinstance(examples, bool) or not isinstance(examples, int) or not 0 < examples <= 10**9:
            self._fault("examples", f"give a whole number above 0, not {examples!r:.40}")
        hardware, link, mfu = self._hardware(), self._link(), self.row.get("mfu")
        if mfu is not None and not (_is_number(mfu) and 0 < mfu <= 1):
            self._fault("mfu", f"give a share above 0, at most 1, not {mfu!r:.40}")
        if len(self.faults) > before or hardware is None:
            return None
        top = (max(longest[0], source), max(longest[1], target))
        return Candidate(name, hardware, examples, source, target, top, link, mfu)

    def _fault(self, key: str, message: str) -> None:
        self.faults.append(Fault(f"{self.where}: {key}" if key else self.where, message))

    def _unknown(self, row: Mapping[str, Any], known: Sequence[str], within: str) -> None:
        for key in row:
            if key not in known:
                self._fault(f"{within}{key}", f"unknown; known: {', '.join(known)}")

    def _pair(self, key: str, default: tuple[float, float]) -> tuple[float, float]:
        value = self.row.get(key, default)
        pair = isinstance(value, (list, tuple)) and len(value) == 2
        if pair and all(_is_number(item) and 1 <= item <= 10**6 for item in value):
            return float(value[0]), float(value[1])
        self._fault(key, f"give source and target tokens such as [300, 40], not {value!r:.40}")
        return default

    def _hardware(self) -> Hardware | None:
        value = self.row.get("machine")
        if isinstance(value, str) and value in MACHINES:
            return hardware_of({"board": value})
        if not isinstance(value, Mapping):
            known = ", ".join(MACHINES)
            self._fault("machine", f"give measured figures or one of {known}; not {value!r:.40}")
            return None
        self._unknown(value, PROFILE_KEYS, "machine.")
        hardware = hardware_of(value)
        for text in hardware.faults:
            self._fault("machine", text)
        for key, known_figure in (
            ("peak_flops", hardware.peak_flops),
            ("memory_bandwidth_bps", hardware.bandwidth_bps),
            ("memory_bytes", hardware.memory_bytes),
        ):
            if not known_figure and not any(key in text for text in hardware.faults):
                self._fault(f"machine.{key}", "is missing; measure it, or name a known board")
        return hardware

    def _link(self) -> Link | None:
        value = self.row.get("link")
        if value is None:
            self._fault("link", f"give a table with rates or one of {', '.join(LINKS)}")
            return None
        if isinstance(value, str):
            if value not in LINKS:
                self._fault("link", f"unknown {value!r:.40}; choose from {', '.join(LINKS)}")
            return LINKS.get(value)
        if not isinstance(value, Mapping):
            self._fault("link", f"give a name or a table, not {value!r:.40}")
            return None
        self._unknown(value, LINK_KEYS, "link.")
        figures = {key: value[key] for key in value if key in LINK_KEYS}
        missing = [key for key in ("up_bps", "down_bps") if key not in figures]
        base = LINKS.get(str(figures.get("name", "")))
        if base is None and missing:
            self._fault("link", f"{' and '.join(missing)} missing, in bytes per second")
            return None
        start: dict[str, Any] = {"delay_s": 0.0, **figures}
        try:
            return replace(base, **figures) if base else Link(**start)
        except SpecError as error:
            for fault in error.faults:
                self._fault(fault.path, fault.message)
            return None


def _is_number(value: Any) -> bool:
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    return right and abs(value) < 1e300  # no NaN, no infinity
