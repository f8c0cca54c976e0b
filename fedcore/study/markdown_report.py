"""A study's report in Markdown. A new report keeps the author's interpretation."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedcore.study.metrics import METRICS
from fedcore.study.runs import RunStore, chosen, count, score, tries
from fedcore.study.study import Settings
from fedcore.study.summary import Spread, SummaryRow, best, rows, spread

OPENED = "<!-- interpretation: yours; it stays when the study is run again -->"
CLOSED = "<!-- end of the interpretation -->"
EMPTY = "Not written yet."


def write_report(shelf: RunStore, path: Path, command: str, pictures: Sequence[Path]) -> None:
    """Write the report. ``command`` repeats the study. Plots are next to the report."""
    rows_by_split = rows(shelf)
    parts = [
        f"# {shelf.study.title}",
        shelf.study.question,
        f"{OPENED}\n{interpretation(path)}\n{CLOSED}",
        _setting(shelf, rows_by_split),
        *(_table(shelf, name, each) for name, each in rows_by_split.items() if each),
        *(_differences(shelf, name, each) for name, each in rows_by_split.items() if len(each) > 1),
        _plans(rows_by_split),
        _failures(rows_by_split),
        "\n\n".join(f"![{item.stem}]({item.relative_to(path.parent)})" for item in pictures),
        _tuning(shelf),
        f"## To run it again\n\n```sh\n{command}\n```",
    ]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")


def write_values(shelf: RunStore, path: Path) -> None:
    """Write the metrics of every run as CSV, one line per run."""
    names = shelf.study.metrics
    with path.open("w", encoding="utf-8", newline="") as file:
        written = csv.writer(file, lineterminator="\n")
        written.writerow(["split", "method", "settings", "seed", *names, "failure"])
        for split, each in rows(shelf).items():
            for row in each:
                values = {name: row.values(name) for name in names}
                for seed, record in row.records.items():
                    numbers = [values[name].get(seed) for name in names]
                    cells = ["" if number is None else f"{number:.6g}" for number in numbers]
                    head = [split, row.method.name, _settings_text(row.settings), seed]
                    written.writerow([*head, *cells, record.failure])


def interpretation(path: Path) -> str:
    """The interpretation in an existing report."""
    text = path.read_text("utf-8") if path.is_file() else ""
    match = re.search(f"{re.escape(OPENED)}\n(.*?)\n{re.escape(CLOSED)}", text, re.DOTALL)
    return match[1] if match else EMPTY


def _setting(shelf: RunStore, rows_by_split: Mapping[str, Sequence[SummaryRow]]) -> str:
    study = shelf.study
    run_count = sum(len(row.records) for each in rows_by_split.values() for row in each)
    expected_runs = count(study) - len(tries(study))
    missing = (
        f" **{expected_runs - run_count} of {expected_runs} runs are missing.**"
        if run_count < expected_runs
        else ""
    )
    splits = []
    for row in study.splits:
        labels = f", labels `{row.label_column}`" if row.label_column else ""
        devices = f", {row.devices} devices" if row.devices else ""
        splits.append(f"{row.name} (`{row.partition}`{labels}{devices})")
    seeds = ", ".join(map(str, study.seeds))
    return (
        f"Data: `{study.data}` (SHA-256 `{shelf.data_sha256[:12]}`). Splits: {'; '.join(splits)}. "
        f"Seeds: {seeds}.{missing}\n\nMean ± standard deviation over the seeds (n - 1); **bold** "
        "is the best mean of those over all seeds, which says little where deviations overlap. "
        "Options that are not named here are the defaults of docs/reference/jobspec.md; each run's "
        "file holds all of them."
    )


def _table(shelf: RunStore, name: str, each: Sequence[SummaryRow]) -> str:
    names = shelf.study.metrics
    winners = {metric: best(each, metric) for metric in names}
    arrows = {"lower": " ↓", "higher": " ↑", "": ""}
    labels = [f"{METRICS[name].label}{arrows[METRICS[name].better]}" for name in names]
    heads = ["Method", *labels]
    lines = [heads, ["---", *("---:" for _ in names)]]
    for row in each:
        cells = []
        for metric in names:
            values = list(row.values(metric).values())
            text = spread_text(spread(values), METRICS[metric].digits) if values else "–"
            text = f"**{text}**" if values and winners[metric] is row else text
            cells.append(f"{text}{_coverage(len(values), len(row.records))}" if values else text)
        chose = ", ".join(f"{path.split('.')[-1]} {value}" for path, value in row.settings.items())
        words = "; ".join(text for text in (row.method.note, chose) if text)
        lines.append([(f"{row.method.name} ({words})" if words else row.method.name), *cells])
    return f"## {name}\n\n{_markdown(lines)}"


def _coverage(values: int, seeds: int) -> str:
    """How many seeds a figure is of, where that is not all of them."""
    return f" ({values} of {seeds})" if values < seeds else ""


def spread_text(value: Spread, digits: int, sign: bool = False) -> str:
    mean, deviation = value
    text = f"{mean:{'+' if sign else ''}.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def _differences(shelf: RunStore, name: str, each: Sequence[SummaryRow]) -> str:
    """Seed by seed, so that what a seed makes harder for everybody cancels out."""
    first = each[0]
    names = [metric for metric in shelf.study.metrics if METRICS[metric].better]
    lines = [["Method", *(METRICS[metric].title for metric in names)]]
    lines.append(["---", *("---:" for _ in names)])
    for row in each[1:]:
        cells = []
        for metric in names:
            gaps = row.gaps_to(first, metric)
            seeds = len({*row.records, *first.records})
            text = spread_text(spread(gaps), METRICS[metric].digits, sign=True) if gaps else "–"
            cells.append(f"{text}{_coverage(len(gaps), seeds)}" if gaps else text)
        lines.append([row.method.name, *cells])
    return f"### {name}: less {first.method.name}, seed by seed\n\n{_markdown(lines)}"


def _plans(rows_by_split: Mapping[str, Sequence[SummaryRow]]) -> str:
    """What FedPipe planned for each device, of the first seed that is there."""
    lines = [
        f"- {row.method.name}, {name}: {plan['why']}"
        for each in rows_by_split.values()
        for row in each
        for record in list(row.records.values())[:1]
        for name, plan in record.plans.items()
    ]
    return "\n".join(["## Plans, first seed", "", *lines]) if lines else ""


def _failures(rows_by_split: Mapping[str, Sequence[SummaryRow]]) -> str:
    lines = [
        f"- {row.method.name} on {name}, seed {seed}, after round {len(record.rounds) - 1}: "
        f"{record.failure}"
        for name, each in rows_by_split.items()
        for row in each
        for seed, record in row.records.items()
        if record.failure
    ]
    return "\n".join(["## Runs that failed", "", *lines]) if lines else ""


def _tuning(shelf: RunStore) -> str:
    """What was tried, on which seeds, and what was chosen."""
    study, metric = shelf.study, METRICS[shelf.study.tuning_metric]
    lines = [["Split", "Method", "Tried", metric.label], ["---", "---", "---", "---:"]]
    for split in study.splits:
        for method in study.methods:
            best_settings = chosen(shelf, method, split)
            for settings in method.grid if method.tune else ():
                value = score(shelf, method, split, settings)
                text = "not yet" if value is None else f"{value:.{metric.digits}f}"
                tried = (
                    f"**{_settings_text(settings)}**"
                    if settings == best_settings
                    else _settings_text(settings)
                )
                lines.append([split.name, method.name, tried, text])
    if len(lines) == 2:
        return ""
    seeds = ", ".join(map(str, study.tuning_seeds))
    word = "seed" if len(study.tuning_seeds) == 1 else "seeds"
    return f"## Tuning\n\nOn {word} {seeds} alone; **bold** was taken.\n\n{_markdown(lines)}"


def _settings_text(settings: Settings) -> str:
    return ", ".join(f"{path} {value}" for path, value in settings.items())


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
