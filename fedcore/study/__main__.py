"""``python -m fedcore.study``: simulate a grid of methods, splits and seeds; table and draw it.

Each run is kept as a file: what is there already is not simulated again, and a study that was
killed goes on with the run it was in.
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
from fedcore.study.runs import RunStore, StudyRun, compared, count, tries, wanted
from fedcore.study.study_data import data_file, made_here
from fedcore.study.study_file import read_study


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m fedcore.study", description=__doc__)
    made.add_argument("study", metavar="STUDY.toml", help="docs/studies/ has some")
    made.add_argument("--out", required=True, metavar="DIR", help="runs, report.md and pictures")
    made.add_argument("--data-dir", default=".", metavar="DIR", help="where the data file lies")
    made.add_argument("--threads", type=int, default=0, help="of each run; 0: all cores")
    made.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="runs whose id holds this text"
    )
    made.add_argument("--list", action="store_true", help="show the runs and which are there")
    made.add_argument("--report", action="store_true", help="simulate nothing, write the report")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all is done, 2 for bad input (all faults are said), 130 when interrupted."""
    args = parser().parse_args(arguments)
    try:
        shelf = _shelf(args)
        if args.list:
            _list(shelf, args.only)
            return 0
        if not args.report:
            _run_all(shelf, args)
        _write(shelf, args)
    except SpecError as error:
        return _refuse([str(fault) for fault in error.faults])
    except EdgewiseError as error:
        return _refuse([str(error)])
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _shelf(args: argparse.Namespace) -> RunStore:
    study = read_study(Path(args.study))
    if args.threads < 0:
        raise SpecError([Fault("--threads", "give 0 (all cores) or more")])
    out = Path(args.out)
    data = data_file(study.data, Path(args.data_dir), out / ".data")
    return RunStore(study, out / "runs", data)


def _refuse(reasons: Sequence[str]) -> int:
    for reason in reasons:
        print(f"study: {reason}", file=sys.stderr)
    return 2


def _list(shelf: RunStore, only: Sequence[str]) -> None:
    runs = [*tries(shelf.study), *compared(shelf)]
    for run in wanted(runs, only):
        print(f"{_state(shelf, run):8}  {run.id}")
    if later := count(shelf.study) - len(runs):
        print(f"{later} more when tuning is done")


def _state(shelf: RunStore, run: StudyRun) -> str:
    if record := shelf.get(run):
        return "failed" if record.failure else "done"
    return "outdated" if shelf.path(run).exists() else "missing"


def _run_all(shelf: RunStore, args: argparse.Namespace) -> None:
    """Tries first: what they choose decides the runs that are compared."""
    progress = StudyProgress(shelf, args.only)
    _run_missing(shelf, tries(shelf.study), args, progress)
    _run_missing(shelf, compared(shelf), args, progress)


def _run_missing(
    shelf: RunStore, runs: Sequence[StudyRun], args: argparse.Namespace, progress: StudyProgress
) -> None:
    from fedcore.study.execute import execute  # torch is not needed for a list or a report

    for run in wanted(runs, args.only):
        if shelf.get(run) is not None:
            continue
        with _workdir(Path(args.out) / ".work") as workdir:
            record = execute(shelf, run, workdir, args.threads, progress.round_of(run))
        shelf.put(run, record)
        progress.done(run, record)


@contextlib.contextmanager
def _workdir(above: Path) -> Iterator[Path]:
    """A folder of this process; those that killed ones left are removed."""
    above.mkdir(parents=True, exist_ok=True)
    for left in above.iterdir():
        if not (left.name.isdecimal() and Path("/proc", left.name).exists()):
            shutil.rmtree(left, ignore_errors=True)
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
    brought = "" if made_here(shelf.study.data) else "--data-dir DIR "
    command = f"python -m fedcore.study {name} {brought}--out DIR"
    write_report(shelf, out / "report.md", command, pictures)
    write_values(shelf, out / "values.csv")
    print(out / "report.md")


if __name__ == "__main__":
    sys.exit(main())
