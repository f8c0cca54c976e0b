"""The form of a new job, from ``fedcore.spec.job.options()``: a new option appears by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from fedcore.architecture.sizes import KNOWN, PACKAGED
from fedcore.catalogue import CATALOGUE
from fedcore.errors import Fault
from fedcore.spec.job import JobSpec, OptionInfo, options
from webapp.devices.models import Device, DeviceRole
from webapp.pages.jobs.form_layout import (
    CARDS,
    ELSEWHERE,
    FIRST,
    ONLY_WITH,
    PLACES,
    SECTIONS,
    USUAL,
)

Json = dict[str, Any]
LEFT_OUT = "left-out"  # the paths, with commas between, of what static/js/new_job.js hides


@dataclass(frozen=True)
class FieldChoice:
    value: str
    label: str
    note: str = ""
    state: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Field:
    """One option as the template draws it. ``kind``: text, number, truth, choice, cards, names."""

    info: OptionInfo
    kind: str
    value: Any
    faults: tuple[str, ...] = ()
    choices: tuple[FieldChoice, ...] = ()
    suggestions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.info.path

    @property
    def id(self) -> str:
        return "o-" + self.info.path.replace(".", "-").replace("_", "-")

    @property
    def step(self) -> str:
        return "1" if isinstance(self.info.default, int) else "any"

    @property
    def only_with(self) -> str:
        """``PATH=VALUE|VALUE``: shown where that option has one of these values."""
        path, *values = ONLY_WITH.get(self.name, ("",))
        return f"{path}={'|'.join(values)}" if path else ""

    @property
    def usual(self) -> tuple[FieldChoice, ...]:
        """The cards seen at once."""
        return tuple(choice for choice in self.choices if not self._rare(choice))

    @property
    def rare(self) -> tuple[FieldChoice, ...]:
        """The cards that unfold."""
        return tuple(choice for choice in self.choices if self._rare(choice))

    @property
    def rare_open(self) -> bool:
        return any(choice.chosen for choice in self.rare)

    def _rare(self, choice: FieldChoice) -> bool:
        return choice.value not in USUAL.get(self.name, (choice.value,))

    @property
    def help(self) -> str:
        """A sentence, unless it begins with a name; cards and devices say it themselves.

        The name of the choice it belongs to is left out: the field stands there with it alone.
        """
        text = "" if self.kind in ("cards", "devices") else self.info.help
        path, *values = ONLY_WITH.get(self.name, ("",))
        for label, _ in (CARDS.get(path, {}).get(value, ("", "")) for value in values):
            text = "" if text == label else text.removeprefix(f"{label}: ")
        first = text.partition(" ")[0]
        return text if first.endswith((":", ",")) else text[:1].upper() + text[1:]

    @property
    def described_by(self) -> str:
        notes = [f"{self.id}-help"] if self.help else []
        return " ".join(notes + ([f"{self.id}-fault"] if self.faults else []))


@dataclass
class Section:
    key: str
    title: str
    lead: str
    fields: list[Field] = field(default_factory=list)
    advanced: list[Field] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether the advanced part must be seen: it holds a fault or something not default."""
        return any(f.faults or f.value not in _untouched(f.info) for f in self.advanced)


def _untouched(info: OptionInfo) -> tuple[Any, ...]:
    """What a field holds whose option is at its default; a list may stand as text."""
    default = plain(info.default)
    return (default, ", ".join(default)) if isinstance(default, list) else (default,)


def place_of(path: str) -> str:
    head = path.split(".")[0]
    return PLACES.get(path) or PLACES.get(head) or ELSEWHERE


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def read(post: QueryDict) -> Json:
    """What was typed, as the nested values ``parse_spec`` reads; nonsense stays as typed.

    An option that the page has hidden, as it belongs to another choice, keeps its default.
    """
    values: Json = {}
    hidden = set(post.get(LEFT_OUT, "").split(",")) & set(ONLY_WITH)
    for info in options(JobSpec):
        if info.path not in hidden:
            _put(values, info.path, _typed(info, post))
    return values


def _typed(info: OptionInfo, post: QueryDict) -> Any:
    default = info.default
    if isinstance(default, tuple):
        words = [name for name in post.getlist(info.path) if name]
        return ", ".join(words) if _is_list(info) else words
    if isinstance(default, bool):
        return info.path in post
    text = post.get(info.path, "")
    if isinstance(default, str):
        return text if "prefix" in info.path else text.strip()
    for kind in (int, float):
        try:
            return kind(text.strip())
        except (ValueError, OverflowError):
            continue
    return text


def _is_list(info: OptionInfo) -> bool:
    """Whether it is a list that is typed, with commas between its words."""
    picked = info.choices is not None or info.path == "participation.devices"
    return isinstance(info.default, tuple) and not picked


def _put(values: Json, path: str, value: Any) -> None:
    *heads, last = path.split(".")
    for head in heads:
        values = values.setdefault(head, {})
    values[last] = value


def _get(values: Mapping[str, Any], path: str, default: Any) -> Any:
    found: Any = values
    for head in path.split("."):
        if not isinstance(found, Mapping) or head not in found:
            return plain(default)
        found = found[head]
    return plain(found)


def sections(
    values: Mapping[str, Any], faults: Iterable[Fault], devices: Sequence[Device]
) -> list[Section]:
    """Every option in its section, with what was typed and what is wrong with it."""
    wrong: dict[str, list[str]] = {}
    for fault in faults:
        wrong.setdefault(fault.path, []).append(fault.message)
    made = {key: Section(key, title, lead) for key, (title, lead) in SECTIONS.items()}
    for info in sorted(options(JobSpec), key=_turn):
        section = made[place_of(info.path)]
        value = _get(values, info.path, info.default)
        drawn = _field(info, value, tuple(wrong.get(info.path, ())), devices)
        folded = info.advanced and info.path not in FIRST
        (section.advanced if folded else section.fields).append(drawn)
    return list(made.values())


def _turn(info: OptionInfo) -> int:
    return FIRST.index(info.path) if info.path in FIRST else len(FIRST)


def _field(
    info: OptionInfo, value: Any, faults: tuple[str, ...], devices: Sequence[Device]
) -> Field:
    if info.path in CARDS:
        cards = CARDS[info.path]
        choices = tuple(
            FieldChoice(name, *cards.get(name, (name, "")), chosen=name == value)
            for name in info.choices or ()
        )
        return Field(info, "cards", value, faults, choices)
    if info.path == "participation.devices":
        return Field(info, "devices", value, faults, _devices(devices, value))
    if info.choices is not None:
        held = value if isinstance(value, list) else [value]
        kind = "names" if isinstance(info.default, tuple) else "choice"
        named = tuple(FieldChoice(name, name, chosen=name in held) for name in info.choices)
        return Field(info, kind, value, faults, named)
    if _is_list(info):
        typed = ", ".join(map(str, value)) if isinstance(value, list) else value
        return Field(info, "text", typed, faults)
    if isinstance(info.default, bool):
        return Field(info, "truth", value, faults)
    if isinstance(info.default, (int, float)):
        shown = int(value) if isinstance(value, float) and value.is_integer() else value
        return Field(info, "number", shown, faults)
    return Field(info, "text", value, faults, suggestions=_suggestions(info.path, devices))


def _devices(devices: Sequence[Device], value: Any) -> tuple[FieldChoice, ...]:
    held = value if isinstance(value, list) else []
    return tuple(
        FieldChoice(
            device.name,
            device.name,
            _held(device),
            device.presence,
            device.name in held,
        )
        for device in devices
    )


def _held(device: Device) -> str:
    """What a device is good for in a job, beside its name."""
    if device.role == DeviceRole.AGGREGATOR:
        return "only folds"
    return ", ".join(f"{d.name} {d.examples}" for d in device.datasets.all()) or "no data"


def _suggestions(path: str, devices: Sequence[Device]) -> tuple[str, ...]:
    if path == "model.name":
        return (*PACKAGED, *KNOWN)
    if path == "data.dataset":
        names = {held.name for device in devices for held in device.datasets.all()}
        return tuple(sorted(names)[:100] or CATALOGUE)
    return ()


def named(faults: Iterable[Fault]) -> list[tuple[str, str, str]]:
    """(id of the field, its label, what is wrong) of each fault."""
    known = {info.path: info for info in options(JobSpec)}
    return [
        (
            Field(known[fault.path], "", None).id if fault.path in known else "",
            known[fault.path].label if fault.path in known else fault.path,
            fault.message,
        )
        for fault in faults
    ]


def changed(spec: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(label, value, default) of every option that is not at its default."""
    found = [(info, _get(spec, info.path, info.default)) for info in options(JobSpec)]
    return [
        (info.label, _words(value), _words(plain(info.default)))
        for info, value in found
        if value != plain(info.default) and info.path != "name"
    ]


def _words(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value
