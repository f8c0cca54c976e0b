"""The fleet of a simulation: the speed and the link of each device."""

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
    """How fast simulated devices are.

    ``speeds``: slowness of the devices in turn. With "1,10" the slow devices take ten times as long
    as the others, which need ``step_seconds`` for a step. ``file``: speeds and links per device.
    """

    speeds: tuple[float, ...] = ()
    link: str = "instant"
    step_seconds: float = 1.0
    file: str = ""


def fleet_of(options: FleetOptions, names: Sequence[str]) -> dict[str, Machine]:
    """The machine of each device; {} without any fleet option. Raises SpecError."""
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
    """The fleet of a file; a row without a name describes the device at its place by name."""
    ordered = sorted(names)
    fleet: dict[str, Machine] = {}
    for number, row in enumerate(_read_rows(Path(options.file))):
        where = f"--fleet: device {number + 1}"
        if unknown := [key for key in row if key not in KEYS]:
            raise SpecError([Fault(where, f"unknown {unknown[0]!r}; known: {', '.join(KEYS)}")])
        name = row.get("name", ordered[number] if number < len(ordered) else None)
        if name not in ordered:
            message = f"there is no device {name!r}; known: {', '.join(ordered)}"
            raise SpecError([Fault(where, message)])
        slowness = _number(row, "slowness", 1.0, where)
        seconds = _number(row, "seconds_per_step", slowness * options.step_seconds, where)
        fleet[str(name)] = Machine(seconds, _link({"link": options.link, **row}, where))
    if missing := [name for name in names if name not in fleet]:
        raise SpecError([Fault("--fleet", f"does not describe {', '.join(missing)}; add them")])
    return fleet


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            rows = json.loads(text)["device"]
        else:
            import tomllib

            rows = tomllib.loads(text)["device"]
    except ModuleNotFoundError as error:
        message = f"cannot read {path}: TOML needs Python 3.11; write the same as .json"
        raise SpecError([Fault("--fleet", message)]) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"cannot read {path}: {error}; give [[device]] tables"
        raise SpecError([Fault("--fleet", text)]) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError([Fault("--fleet", "device must be a list of tables")])
    return rows


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
