"""``python -m fedcore.study``: simulate a grid of methods, splits and seeds, and report it.

Each run is stored as a file. Stored runs are not repeated, so an interrupted study resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedcore.errors import EdgewiseError, Fault, SpecError
from fedcore.study.markdown_report import write_report, write_values
from fedcore.study.plots import draw_study
from fedcore.study.progress import StudyProgress
from fedcore.study.runs import RunStore, StudyRun, compared, count, select_runs, tries
from fedcore.study.study_data import data_file, is_generated
from fedcore.study.study_file import read_study


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(prog="python -m fedcore.study", description=__doc__)
    add = command.add_argument
    add("study", metavar="STUDY.toml", help="a study file, such as those in docs/studies/")
    add("--out", required=True, metavar="DIR", help="folder for runs, report.md and plots")
    add("--data-dir", default=".", metavar="DIR", help="folder of the data file")
    add("--threads", type=int, default=0, help="threads of each run; 0: all cores")
    add("--only", action="append", default=[], metavar="TEXT", help="select runs by id")
    add("--list", action="store_true", help="list the runs and their states")
    add("--report", action="store_true", help="write the report only")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when done, 2 for bad input (with all errors), 130 when interrupted."""
    args = parser().parse_args(arguments)
    try:
        study = read_study(Path(args.study))
        if args.threads < 0:
            raise SpecError([Fault("--threads", "give 0 (all cores) or more")])
        out = Path(args.out)
        data = data_file(study.data, Path(args.data_dir), out / ".data")
        shelf = RunStore(study, out / "runs", data)
        if args.list:
            runs = [*tries(shelf.study), *compared(shelf)]
            for run in select_runs(runs, args.only):
                if record := shelf.get(run):
                    state = "failed" if record.failure else "done"
                else:
                    state = "outdated" if shelf.path(run).exists() else "missing"
                print(f"{state:8}  {run.id}")
            if later := count(shelf.study) - len(runs):
                print(f"{later} more after tuning")
            return 0
        if not args.report:
            # Tries first: what they choose decides the runs that are compared.
            progress = StudyProgress(shelf, args.only)
            _run_missing(shelf, tries(shelf.study), args, progress)
            _run_missing(shelf, compared(shelf), args, progress)
        _write(shelf, args)
    except SpecError as error:
        return _refuse([str(fault) for fault in error.faults])
    except EdgewiseError as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        return 130
    return 0


def _refuse(reasons: Sequence[str]) -> int:
    for reason in reasons:
        print(f"study: {reason}", file=sys.stderr)
    return 2


def _run_missing(
    shelf: RunStore, runs: Sequence[StudyRun], args: argparse.Namespace, progress: StudyProgress
) -> None:
    from fedcore.study.execute import execute  # torch is not needed for a list or a report

    for run in select_runs(runs, args.only):
        if shelf.get(run) is not None:
            continue
        with _workdir(Path(args.out) / ".work") as workdir:
            record = execute(shelf, run, workdir, args.threads, progress.round_of(run))
        shelf.put(run, record)
        progress.done(run, record)


@contextlib.contextmanager
def _workdir(above: Path) -> Iterator[Path]:
    """A folder of this process. Folders of killed processes are removed."""
    above.mkdir(parents=True, exist_ok=True)
    for leftover in above.iterdir():
        if not (leftover.name.isdecimal() and Path("/proc", leftover.name).exists()):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = above / str(os.getpid())
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(shelf: RunStore, args: argparse.Namespace) -> None:
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = draw_study(shelf, out / "plots")
    file = Path(args.study)
    name = file.name if file.is_absolute() else file
    brought = "" if is_generated(shelf.study.data) else "--data-dir DIR "
    command = f"python -m fedcore.study {name} {brought}--out DIR"
    write_report(shelf, out / "report.md", command, pictures)
    write_values(shelf, out / "values.csv")
    print(out / "report.md")


if __name__ == "__main__":
    sys.exit(main())
