"""What a running study says: a line for each run, with the time that is left."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence

from fedcore.study.metrics import Record
from fedcore.study.runs import RunStore, StudyRun, compared, tries, wanted


class StudyProgress:
    """Counts the runs of a study; those that are there already count as done."""

    def __init__(self, shelf: RunStore, only: Sequence[str]) -> None:
        self._shelf, self._only = shelf, only
        self._seconds: dict[str, list[float]] = {}  # of each method's runs
        for run in self._known():
            if record := shelf.get(run):
                self._note(run, record)

    def round_of(self, run: StudyRun) -> Callable[[int, int], None]:
        """Says which round a run is in, where somebody looks."""

        def say(number: int, of: int) -> None:
            if sys.stdout.isatty():
                print(f"\r{run.id}: round {number} of {of} ", end="", flush=True)

        return say

    def done(self, run: StudyRun, record: Record) -> None:
        """One line about a run that is over."""
        self._note(run, record)
        done, left = self._counts()
        start = "\r" if sys.stdout.isatty() else ""  # over the line that said the round
        print(
            f"{start}[{done}/{done + left}] {run.id}: {self._words(record)}, "
            f"{record.seconds:.0f} s; {self._time_left()}",
            flush=True,
        )

    def _known(self) -> list[StudyRun]:
        return wanted([*tries(self._shelf.study), *compared(self._shelf)], self._only)

    def _note(self, run: StudyRun, record: Record) -> None:
        self._seconds.setdefault(run.method.name, []).append(record.seconds)

    def _left(self) -> list[StudyRun]:
        """Runs to come; those that wait for tuning stand in with settings that do not matter."""
        study = self._shelf.study
        grid = [
            StudyRun(method, split, seed, {})
            for split in study.splits
            for method in study.methods
            for seed in study.seeds
        ]
        ready = {run.id: run for run in self._known()}
        waiting = [run for run in wanted(grid, self._only) if run.id not in ready]
        return [*(run for run in ready.values() if self._shelf.get(run) is None), *waiting]

    def _counts(self) -> tuple[int, int]:
        return sum(map(len, self._seconds.values())), len(self._left())

    def _time_left(self) -> str:
        means = {name: statistics.fmean(values) for name, values in self._seconds.items()}
        usual = statistics.fmean(means.values())
        seconds = sum(means.get(run.method.name, usual) for run in self._left())
        return f"about {seconds / 60:.0f} min left" if seconds else "all done"

    @staticmethod
    def _words(record: Record) -> str:
        if record.failure:
            return f"failed: {record.failure[:100]}"
        means = [each["mean"] for each in record.rounds if each["mean"]]
        return f"loss {means[-1]['loss']:.4f}, ROUGE-L {means[-1]['rougeL']:.2f}"
