"""The fleet of a simulation: how fast each device is, and what link it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedcore.errors import Fault, SpecError
from fedcore.hardware.links import LINKS, Link
from fedcore.hardware.virtual_device import Machine

KEYS = ("name", "slowness", "seconds_per_step", "link", "up_bps", "down_bps", "delay_s")


@dataclass(frozen=True)
class FleetOptions:
    """``speeds`` are slownesses dealt out in turn; the slowest device of "1,10" takes ten times as
    long as the fastest, which needs ``step_seconds`` for a step. ``file`` says it per device."""

    speeds: tuple[float, ...] = ()
    link: str = "instant"
    step_seconds: float = 1.0
    file: str = ""


def fleet_of(options: FleetOptions, names: Sequence[str]) -> dict[str, Machine]:
    """Each device's profile; {} where nothing was asked for. Raises SpecError."""
    if options.file:
        return _from_file(options, names)
    if not options.speeds:
        return {}
    link = _link({"link": options.link}, "--link")
    return {
        name: Machine(options.step_seconds * options.speeds[i % len(options.speeds)], link)
        for i, name in enumerate(sorted(names))
    }


def speeds_of(text: str) -> tuple[float, ...]:
    """Slownesses from "1,2,10"."""
    try:
        speeds = tuple(float(part) for part in text.split(","))
    except ValueError:
        speeds = ()
    if not speeds or not all(0 < speed < float("inf") for speed in speeds):
        raise SpecError([Fault("--speeds", f"give slownesses such as 1,2,10, not {text!r}")])
    return speeds


def _from_file(options: FleetOptions, names: Sequence[str]) -> dict[str, Machine]:
    rows = _rows(Path(options.file))
    fleet: dict[str, Machine] = {}
    for number, row in enumerate(rows):
        where = f"--fleet: device {number + 1}"
        name = _name(row, where, sorted(names), number)
        fleet[name] = _machine(row, where, options)
    if missing := [name for name in names if name not in fleet]:
        raise SpecError([Fault("--fleet", f"says nothing of {', '.join(missing)}; add them")])
    return fleet


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text("utf-8")
        found = json.loads(text) if path.suffix == ".json" else _toml(text)
        rows = found["device"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"cannot read {path}: {error}; give [[device]] tables"
        raise SpecError([Fault("--fleet", text)]) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError([Fault("--fleet", "device must be a list of tables")])
    return rows


def _toml(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError as error:
        raise ValueError("TOML needs Python 3.11; write the same as .json") from error
    return tomllib.loads(text)


def _name(row: Mapping[str, Any], where: str, names: Sequence[str], number: int) -> str:
    """The device a row is of: as it says, else the next one by name."""
    if unknown := [key for key in row if key not in KEYS]:
        raise SpecError([Fault(where, f"unknown {unknown[0]!r}; known: {', '.join(KEYS)}")])
    name = row.get("name", names[number] if number < len(names) else None)
    if name not in names:
        raise SpecError([Fault(where, f"there is no device {name!r}; known: {', '.join(names)}")])
    return str(name)


def _machine(row: Mapping[str, Any], where: str, options: FleetOptions) -> Machine:
    slowness = _number(row, "slowness", 1.0, where)
    seconds = _number(row, "seconds_per_step", slowness * options.step_seconds, where)
    return Machine(seconds, _link({"link": options.link, **row}, where))


def _link(row: Mapping[str, Any], where: str) -> Link:
    name = row["link"]
    if name not in LINKS:
        raise SpecError([Fault(where, f"unknown link {name!r}; choose from {', '.join(LINKS)}")])
    known = LINKS[name]
    return replace(
        known,
        up_bps=_number(row, "up_bps", known.up_bps, where),
        down_bps=_number(row, "down_bps", known.down_bps, where),
        delay_s=_number(row, "delay_s", known.delay_s, where, zero=True),
    )


def _number(
    row: Mapping[str, Any], key: str, default: float, where: str, zero: bool = False
) -> float:
    value = row.get(key, default)
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right or not (value > 0 or (zero and value == 0)):
        raise SpecError([Fault(where, f"{key} must be a number above 0, not {value!r}")])
    return float(value)
