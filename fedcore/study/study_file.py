"""Read a study file and report all its errors together, including unknown keys."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcore.errors import DataError, Fault, SpecError
from fedcore.partition.kinds import parse_partition
from fedcore.study.metrics import CURVES, METRICS
from fedcore.study.study import DEFAULT_METRICS, Method, SplitRow, Study, slug
from fedcore.study.study_data import data_fault

OWN = ("name", "seed", "threads")  # options that the study sets itself


def read_study(path: Path) -> Study:
    """Read a study file. Raises SpecError with every error."""
    try:
        import tomllib

        values = tomllib.loads(path.read_text("utf-8"))
    except ModuleNotFoundError as error:
        raise SpecError([Fault("", "studies are TOML, which needs Python 3.11")]) from error
    except (OSError, ValueError) as error:
        raise SpecError([Fault("", f"cannot read {path.name}: {error}")]) from error
    return study_of(values)


def study_of(values: Mapping[str, Any]) -> Study:
    """A study from plain values. Raises SpecError with every error."""
    reader = _StudyReader()
    study = reader.study(values)
    reader.faults += _faults(study) if not reader.faults else []
    if reader.faults:
        raise SpecError(reader.faults)
    return study


class _StudyReader:
    """Reads values from tables and collects errors."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def study(self, values: Mapping[str, Any]) -> Study:
        known = (
            "title", "question", "data", "text_column", "summary_column", "seeds", "metrics",
            "curves", "target_loss", "spec", "tuning", "split", "method",
        )  # fmt: skip
        self.unknown(values, known, "")
        tuning = self.take(values, "tuning", dict, {})
        self.unknown(tuning, ("seeds", "metric"), "tuning")
        splits = self.take(values, "split", list, [{"name": "iid"}])
        return Study(
            title=self.take(values, "title", str),
            question=self.take(values, "question", str, ""),
            data=self.take(values, "data", str),
            text_column=self.take(values, "text_column", str, ""),
            summary_column=self.take(values, "summary_column", str, ""),
            seeds=self.listed(values, "seeds", int),
            metrics=self.listed(values, "metrics", str, DEFAULT_METRICS),
            curves=self.listed(values, "curves", str, ("loss", "rougeL")),
            target_loss=float(self.take(values, "target_loss", (int, float), 0.0)),
            spec=self.take(values, "spec", dict, {}),
            tuning_seeds=self.listed(tuning, "seeds", int, (), "tuning"),
            tuning_metric=self.take(tuning, "metric", str, "loss", "tuning"),
            splits=tuple(self.split(row, n) for n, row in enumerate(splits)),
            methods=tuple(
                self.method(row, n) for n, row in enumerate(self.take(values, "method", list))
            ),
        )

    def split(self, row: Any, number: int) -> SplitRow:
        where = f"split[{number}]"
        row = self.table(row, where)
        self.unknown(row, ("name", "partition", "label_column", "devices"), where)
        return SplitRow(
            self.take(row, "name", str, where=where),
            self.take(row, "partition", str, "iid", where),
            self.take(row, "label_column", str, "", where),
            self.take(row, "devices", int, 0, where),
        )

    def method(self, row: Any, number: int) -> Method:
        where = f"method[{number}]"
        row = self.table(row, where)
        self.unknown(row, ("name", "note", "spec", "tune"), where)
        tune = self.take(row, "tune", dict, {}, where)
        for path, tries in tune.items():
            if not isinstance(tries, list) or not tries:
                self.fault(f"{where}.tune", f"{path}: give a list of values to try")
        return Method(
            self.take(row, "name", str, where=where),
            self.take(row, "spec", dict, {}, where),
            {path: tries if isinstance(tries, list) else [tries] for path, tries in tune.items()},
            self.take(row, "note", str, "", where),
        )

    def table(self, row: Any, where: str) -> Mapping[str, Any]:
        if isinstance(row, Mapping):
            return row
        self.fault(where, "give a table")
        return {"name": ""}

    def unknown(self, values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                self.fault(_join(where, key), f"unknown key; {hint}")

    def take(
        self, values: Mapping[str, Any], key: str, kind: Any, default: Any = None, where: str = ""
    ) -> Any:
        """A value of the given type. Without a default it is required."""
        value = values.get(key, default)
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            return value
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if key in values or default is None:
            names = " or ".join(WORDS[each] for each in kinds)
            self.fault(_join(where, key), f"give {names}")
        return default if default is not None else kinds[0]()

    def listed(
        self,
        values: Mapping[str, Any],
        key: str,
        kind: type,
        default: tuple[Any, ...] | None = None,
        where: str = "",
    ) -> tuple[Any, ...]:
        items = self.take(values, key, list, None if default is None else list(default), where)
        if not all(isinstance(item, kind) and not isinstance(item, bool) for item in items):
            self.fault(_join(where, key), f"each must be {WORDS[kind]}")
        if key in values and not items:
            self.fault(_join(where, key), "give at least one")
        return tuple(items)

    def fault(self, where: str, message: str) -> None:
        self.faults.append(Fault(where, message))


WORDS = {
    str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "a table",
}  # fmt: skip


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _faults(study: Study) -> list[Fault]:
    """What is wrong with a study whose keys and types are right."""
    faults = [
        *_repeated("split", [slug(row.name) for row in study.splits]),
        *_repeated("method", [slug(row.name) for row in study.methods]),
        *_repeated("seeds", study.seeds),
        *_unknown_metrics(study),
        *(Fault(f"spec.{key}", "is set by the study; remove it") for key in OWN
          if key in study.spec),
    ]  # fmt: skip
    if message := data_fault(study.data):
        faults.append(Fault("data", message))
    if both := sorted(set(study.seeds) & set(study.tuning_seeds)):
        faults.append(Fault("tuning.seeds", f"must differ from seeds; {both} are in both"))
    if any(row.tune for row in study.methods) and not study.tuning_seeds:
        faults.append(Fault("tuning.seeds", "give seeds for tuning that differ from seeds"))
    if "rounds_to_target" in study.metrics and study.target_loss <= 0:
        faults.append(Fault("target_loss", "give the target loss for rounds_to_target"))
    for number, row in enumerate(study.splits):
        try:
            parse_partition(row.partition)
        except DataError as error:
            faults.append(Fault(f"split[{number}].partition", str(error)))
    for method in study.methods:
        of_specs: dict[Fault, None] = {}  # each once
        for settings in method.grid:
            try:
                study.spec_of(method, settings, 0)
            except SpecError as error:
                of_specs.update(dict.fromkeys(error.faults))
        where = f"method {method.name!r}"
        faults += [Fault(f"{where}: {fault.path}", fault.message) for fault in of_specs]
    return faults


def _unknown_metrics(study: Study) -> list[Fault]:
    choices = (
        ("metrics", study.metrics, METRICS),
        ("curves", study.curves, CURVES),
        ("tuning.metric", (study.tuning_metric,), [n for n, m in METRICS.items() if m.better]),
    )
    return [
        Fault(where, f"unknown metric {name!r}; known: {', '.join(known)}")
        for where, names, known in choices
        for name in names
        if name not in known
    ]


def _repeated(where: str, names: Iterable[object]) -> list[Fault]:
    return [
        Fault(where, f"{name!r} occurs {count} times; give each a unique name")
        for name, count in Counter(names).items()
        if count > 1 or name == ""
    ]
