"""Progress of a running study: one line per run with the remaining time."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence

from fedcore.study.metrics import Record
from fedcore.study.runs import RunStore, StudyRun, compared, select_runs, tries


class StudyProgress:
    """Count a study's runs. Stored runs count as done."""

    def __init__(self, shelf: RunStore, only: Sequence[str]) -> None:
        self._shelf, self._only = shelf, only
        self._seconds: dict[str, list[float]] = {}  # of each method's runs
        for run in self._known():
            if record := shelf.get(run):
                self._note(run, record)

    def round_of(self, run: StudyRun) -> Callable[[int, int], None]:
        """A callback that prints the current round on a terminal."""

        def say(number: int, of: int) -> None:
            if sys.stdout.isatty():
                print(f"\r{run.id}: round {number} of {of} ", end="", flush=True)

        return say

    def done(self, run: StudyRun, record: Record) -> None:
        """Print one line about a finished run."""
        self._note(run, record)
        # Runs that wait for tuning are listed with empty settings.
        study = self._shelf.study
        grid = [
            StudyRun(method, split, seed, {})
            for split in study.splits
            for method in study.methods
            for seed in study.seeds
        ]
        ready = {each.id: each for each in self._known()}
        waiting = [each for each in select_runs(grid, self._only) if each.id not in ready]
        remaining = [each for each in ready.values() if self._shelf.get(each) is None]
        remaining += waiting
        done = sum(map(len, self._seconds.values()))
        means = {name: statistics.fmean(values) for name, values in self._seconds.items()}
        overall = statistics.fmean(means.values())
        remaining_s = sum(means.get(each.method.name, overall) for each in remaining)
        time_left = f"about {remaining_s / 60:.0f} min left" if remaining_s else "all done"
        if record.failure:
            outcome = f"failed: {record.failure[:100]}"
        else:
            last = [each["mean"] for each in record.rounds if each["mean"]][-1]
            outcome = f"loss {last['loss']:.4f}, ROUGE-L {last['rougeL']:.2f}"
        start = "\r" if sys.stdout.isatty() else ""  # overwrites the line of the current round
        print(
            f"{start}[{done}/{done + len(remaining)}] {run.id}: {outcome}, "
            f"{record.seconds:.0f} s; {time_left}",
            flush=True,
        )

    def _known(self) -> list[StudyRun]:
        return select_runs([*tries(self._shelf.study), *compared(self._shelf)], self._only)

    def _note(self, run: StudyRun, record: Record) -> None:
        self._seconds.setdefault(run.method.name, []).append(record.seconds)
