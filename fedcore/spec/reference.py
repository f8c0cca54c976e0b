"""``python -m fedcore.spec.reference > docs/reference/jobspec.md``: every option of a job."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass

from fedcore.spec.checks import Check, check_of
from fedcore.spec.job import JobSpec, OptionInfo, option_types, options
from fedcore.spec.options.method import OF_METHOD

HEAD = """\
# The job specification

`make docs` writes this page from `fedcore/spec/`. The form, `POST /api/v1/jobs/`, devices and
`python -m fedcore.simulate` use the same specification. A missing option has its default. All
errors of a specification are reported together. [Methods](methods/README.md) explains the names.

```json
{"name": "law", "model": {"name": "google/flan-t5-small"}, "adapter": {"kind": "lora", "rank": 8},
 "data": {"dataset": "law"}, "train": {"local_steps": 50}, "strategy": {"name": "fedavg"},
 "participation": {"minimum": 3, "deadline_s": 1800}, "rounds": 10, "seed": 7}
```
"""
COLUMNS = "| option | default | allowed | meaning |\n| --- | --- | --- | --- |\n"


def main() -> None:
    print(document(), end="")


def document() -> str:
    """The whole page; ``advanced`` options are marked, since the form folds them away."""
    sections: dict[str, list[OptionInfo]] = {}
    for item in options():
        sections.setdefault(item.path.rpartition(".")[0], []).append(item)
    parts = [HEAD, "\n"]
    for section, items in sections.items():
        parts.append(f"## {section or 'The job'}\n\n{COLUMNS}")
        for item in items:
            star = "*" if item.advanced else ""
            only = f" Only with `{OF_METHOD[item.path]}`." if item.path in OF_METHOD else ""
            meaning = f"{item.label}. {item.help}{only}".strip()
            default = f"`{json.dumps(item.default)}`"
            cells = (f"`{item.path}`{star}", default, _allowed(item.path), meaning)
            parts.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n")
        parts.append("\n")
    parts.append("An option marked * is folded away in the form.\n")
    return "".join(parts)


def _allowed(path: str) -> str:
    check = _check(JobSpec, path)
    if check.choices:
        names = ", ".join(f"`{name}`" for name in check.choices)
        return f"some of {names}" if check.kind == "names" else names
    if check.low is None or check.high is None:
        return {"truth": "`true`, `false`", "names": "names"}.get(check.kind, "text")
    what = "a whole number" if check.kind == "whole" else "a number"
    edge = "above" if check(check.low)[1] else "from"
    return f"{what} {edge} {_number(check.low)} to {_number(check.high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _check(kind: type, path: str) -> Check:
    """The check of the option at a dotted path."""
    name, _, rest = path.partition(".")
    hint = option_types(kind)[name]
    if rest and is_dataclass(hint):
        return _check(hint, rest)  # type: ignore[arg-type]
    return check_of(next(item for item in fields(kind) if item.name == name))


if __name__ == "__main__":
    main()
