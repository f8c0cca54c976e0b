"""The fields of the new-job form, built from ``options(JobSpec)``: a new option gets its field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedcore.architecture.sizes import KNOWN, PACKAGED, architecture_of
from fedcore.catalogue import CATALOGUE
from fedcore.errors import Fault
from fedcore.spec.job import JobSpec, OptionInfo, options
from webapp.common.units import si
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
from webapp.pages.jobs.form_values import is_text_list, plain, value_at


@dataclass(frozen=True)
class FieldChoice:
    value: str
    label: str
    note: str = ""
    state: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class OptionField:
    """The field of one option.

    ``kind``: text, number, checkbox, select, cards, checkboxes or devices. ``suggestions`` are
    pairs of value and label for a text field.
    """

    info: OptionInfo
    kind: str
    value: Any
    errors: tuple[str, ...] = ()
    choices: tuple[FieldChoice, ...] = ()
    suggestions: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.info.path

    @property
    def id(self) -> str:
        return field_id(self.info.path)

    @property
    def is_integer(self) -> bool:
        return isinstance(self.info.default, int)

    @property
    def only_with(self) -> str:
        """``PATH=VALUE|VALUE``: the field is shown while that option has one of the values."""
        path, *values = ONLY_WITH.get(self.name, ("",))
        return f"{path}={'|'.join(values)}" if path else ""

    @property
    def usual(self) -> tuple[FieldChoice, ...]:
        """The cards shown at once."""
        values = USUAL.get(self.name)
        return tuple(c for c in self.choices if values is None or c.value in values)

    @property
    def rare(self) -> tuple[FieldChoice, ...]:
        """The cards behind a fold."""
        return tuple(choice for choice in self.choices if choice not in self.usual)

    @property
    def rare_open(self) -> bool:
        return any(choice.chosen for choice in self.rare)

    @property
    def help(self) -> str:
        """The option's help; cards and devices explain themselves."""
        return "" if self.kind in ("cards", "devices") else self.info.help

    @property
    def described_by(self) -> str:
        """Ids of the help and the errors, for aria-describedby."""
        ids = [f"{self.id}-help"] if self.help else []
        return " ".join(ids + ([f"{self.id}-error"] if self.errors else []))


@dataclass
class FormSection:
    key: str
    title: str
    lead: str
    fields: list[OptionField] = field(default_factory=list)
    advanced: list[OptionField] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether the advanced part opens: it has an error or a value that is not the default."""
        for item in self.advanced:
            default = plain(item.info.default)
            as_text = ", ".join(default) if isinstance(default, list) else default
            if item.errors or item.value not in (default, as_text):
                return True
        return False


def field_id(path: str) -> str:
    return "o-" + path.replace(".", "-").replace("_", "-")


def sections(
    values: Mapping[str, Any], faults: Iterable[Fault], devices: Sequence[Device]
) -> list[FormSection]:
    """Every option in its section, with the submitted value and its errors."""
    messages: dict[str, list[str]] = {}
    for fault in faults:
        messages.setdefault(fault.path, []).append(fault.message)
    by_key = {key: FormSection(key, title, lead) for key, (title, lead) in SECTIONS.items()}
    position = {path: index for index, path in enumerate(FIRST)}
    for info in sorted(options(JobSpec), key=lambda info: position.get(info.path, len(FIRST))):
        group = info.path.split(".")[0]
        section = by_key[PLACES.get(info.path) or PLACES.get(group) or ELSEWHERE]
        value = value_at(values, info.path, info.default)
        option_field = _field(info, value, tuple(messages.get(info.path, ())), devices)
        is_advanced = info.advanced and info.path not in FIRST
        (section.advanced if is_advanced else section.fields).append(option_field)
    return list(by_key.values())


def _field(
    info: OptionInfo, value: Any, errors: tuple[str, ...], devices: Sequence[Device]
) -> OptionField:
    selected = value if isinstance(value, list) else [value]
    if info.path in CARDS:
        cards = CARDS[info.path]
        choices = tuple(
            FieldChoice(name, *cards.get(name, (name, "")), chosen=name == value)
            for name in info.choices or ()
        )
        return OptionField(info, "cards", value, errors, choices)
    if info.path == "participation.devices":
        return OptionField(info, "devices", value, errors, _device_choices(devices, value))
    if info.choices is not None:
        kind = "checkboxes" if isinstance(info.default, tuple) else "select"
        choices = tuple(FieldChoice(name, name, chosen=name in selected) for name in info.choices)
        return OptionField(info, kind, value, errors, choices)
    if is_text_list(info):
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        return OptionField(info, "text", text, errors)
    if isinstance(info.default, bool):
        return OptionField(info, "checkbox", value, errors)
    if isinstance(info.default, (int, float)):
        whole = isinstance(value, float) and value.is_integer()
        return OptionField(info, "number", int(value) if whole else value, errors)
    return OptionField(info, "text", value, errors, suggestions=_suggestions(info.path, devices))


def _device_choices(devices: Sequence[Device], value: Any) -> tuple[FieldChoice, ...]:
    """A checkbox per device, with its datasets and state."""
    selected = value if isinstance(value, list) else []
    choices = []
    for device in devices:
        datasets = ", ".join(f"{item.name} {item.examples}" for item in device.datasets.all())
        is_aggregator = device.role == DeviceRole.AGGREGATOR
        note = "aggregator only" if is_aggregator else datasets or "no data"
        chosen = device.name in selected
        choices.append(FieldChoice(device.name, device.name, note, device.presence, chosen))
    return tuple(choices)


def _suggestions(path: str, devices: Sequence[Device]) -> tuple[tuple[str, str], ...]:
    if path == "model.name":
        sizes = {name: architecture_of(name) for name in (*PACKAGED, *KNOWN)}
        return tuple(
            (name, f"{si(size.parameters())} parameters" if size else "")
            for name, size in sizes.items()
        )
    if path == "data.dataset":
        names = {dataset.name for device in devices for dataset in device.datasets.all()}
        return tuple((name, "") for name in sorted(names)[:100] or CATALOGUE)
    return ()


def error_links(faults: Iterable[Fault]) -> list[tuple[str, str, str]]:
    """(id of the field, its label, the message) of each error; the id is empty without a field."""
    labels = {info.path: info.label for info in options(JobSpec)}
    return [
        (
            field_id(fault.path) if fault.path in labels else "",
            labels.get(fault.path, fault.path),
            fault.message,
        )
        for fault in faults
    ]


def changed_options(spec: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(label, value, default) of every option that is not at its default."""
    rows = []
    for info in options(JobSpec):
        value, default = value_at(spec, info.path, info.default), plain(info.default)
        if value != default and info.path != "name":
            rows.append((info.label, _joined(value), _joined(default)))
    return rows


def _joined(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value
