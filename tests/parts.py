"""``python -m tests.parts [PART...] [-- PYTEST ARGUMENTS]``: the checks of ``make test``.

One part alone prints as it goes. Several run side by side in lanes, since a whole system mostly
waits while unit tests compute; each part's output is then printed when it ends. A part that fails
keeps its lane's later parts from starting; the exit status is that of the first failed part.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests import packages, report
from tests.chromium import find_or_install
from tests.report import Result, Row

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = Path(sys.executable).parent  # of the virtual environment
PART_LIMIT_S = 2700
STILL_RUNNING_S = 60
STOP_GRACE_S = 20  # for fixtures that drop databases and stop processes
TIMED_OUT = 124
INTERRUPTED = 130
NO_TESTS = 5  # pytest's exit status where it collected nothing
CPUS = os.cpu_count() or 1
# Where tests are marked postgresql; what is not collected need not be imported.
DATABASE_TESTS = ("tests/jobs", "tests/device_api", "tests/line", "tests/api", "tests/web")


@dataclass
class Commands:
    """Runs the commands of one part, one at a time.

    ``output`` takes what they print; without it they have this process's terminal, with it a
    process group of their own, of which nothing is left when they end.
    """

    output: Path | None = None
    niceness: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def run(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        with ExitStack() as stack:
            out = stack.enter_context(self.output.open("ab")) if self.output else sys.stdout.buffer
            out.write(f"$ {' '.join(command)}\n".encode())
            out.flush()
            self._process = subprocess.Popen(
                [str(COMMANDS / command[0]), *command[1:]],
                cwd=ROOT,
                env=dict(os.environ if env is None else env),
                stdout=out,
                stderr=subprocess.STDOUT if self.output else None,
                start_new_session=self.output is not None,
            )
            stack.callback(self.end)
            if self.niceness:
                own_niceness = os.getpriority(os.PRIO_PROCESS, 0)
                os.setpriority(os.PRIO_PROCESS, self._process.pid, own_niceness + self.niceness)
            try:
                return self._process.wait(PART_LIMIT_S)
            except subprocess.TimeoutExpired:
                out.write(f"not done after {PART_LIMIT_S} s\n".encode())
                return TIMED_OUT

    def end(self) -> None:
        """End the process, and what it left running."""
        if self._process is None:
            return
        if self.output:  # a terminal sends its own signal to everybody
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_GRACE_S)
        with suppress(ProcessLookupError):
            if self.output:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait()

    def run_each(self, *commands: Sequence[str]) -> Result:
        for command in commands:
            code = self.run(command)
            if code:
                return Result(code)
        return Result(0)

    def pytest(self, options: Sequence[str], env: Mapping[str, str]) -> Result:
        """Under pytest-xdist, so that a test whose time limit ends its process is one failure."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.xml"
            fixed = ["--dist", "loadfile", "--durations=5", f"--junitxml={path}"]
            result = report.of_junit(self.run(["pytest", *fixed, *options], env), path)
        if result.code == NO_TESTS:
            return Result(0, result.counts, "no tests")
        return result


def lint(commands: Commands, _arguments: Sequence[str]) -> Result:
    return commands.run_each(["ruff", "check", "."], ["ruff", "format", "--check", "."])


def types(commands: Commands, _arguments: Sequence[str]) -> Result:
    return commands.run_each(["mypy", "fedcore", "webapp", "workers", "benchmarks"])


def contracts(commands: Commands, _arguments: Sequence[str]) -> Result:
    return commands.run_each(["lint-imports"])


def _own_services() -> dict[str, str]:
    """The environment without the caller's database and brokers: these parts bring their own."""
    foreign = {"DATABASE_URL", "REDIS_URL"}
    return {key: value for key, value in os.environ.items() if key not in foreign}


def _server(variable: str) -> str:
    """The server that TEST_DATABASE_URL or TEST_REDIS_URL names, else the site's own; or ''."""
    return os.environ.get(f"TEST_{variable}") or os.environ.get(variable, "")


def unit(commands: Commands, arguments: Sequence[str]) -> Result:
    """Tests marked ``postgresql`` are left to that part where a server is named."""
    excluded = ["browser", "stack", "prove"]
    if _server("DATABASE_URL").startswith("postgres") and not arguments:
        excluded.append("postgresql")
    marks = " and ".join(f"not {name}" for name in excluded)
    options = ["-m", marks, "-n", str(min(4, CPUS))]
    # Files keep their order: xdist would run those of few, long tests last, on one process.
    options.append("--no-loadscope-reorder")
    # Several processes at once, so one thread each.
    return commands.pytest([*options, *arguments], {**_own_services(), "OMP_NUM_THREADS": "1"})


def postgresql(commands: Commands, arguments: Sequence[str]) -> Result:
    """The tests marked ``postgresql``, on a server with row locks and real races."""
    server = _server("DATABASE_URL")
    if not server.startswith("postgres"):
        return Result(0, None, "skipped: neither TEST_DATABASE_URL nor DATABASE_URL names one")
    name = f"edgewise_{secrets.token_hex(6)}"  # pytest-django puts test_ before it
    env = {
        **_own_services(),
        "DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{name}")),
        "EDGEWISE_SECRET_KEY": "for-tests-only-" + "0123456789" * 5,
        "OMP_NUM_THREADS": "1",
    }
    return commands.pytest(
        ["-m", "postgresql and not prove", "-n", "1", *DATABASE_TESTS, *arguments], env
    )


def browser(commands: Commands, arguments: Sequence[str]) -> Result:
    """A run of its own: Playwright's event loop and pytest-asyncio's do not share a process."""
    chromium = find_or_install()
    if chromium is None:
        return Result(0, None, "skipped: no Chromium here, and none could be installed")
    env = {**_own_services(), "EDGEWISE_CHROMIUM": chromium}
    return commands.pytest(["-m", "browser", "-n", "1", "tests/browser", *arguments], env)


def stack(commands: Commands, arguments: Sequence[str]) -> Result:
    """Whole systems. PostgreSQL and Redis are used where these variables name them."""
    workers = str(max(1, min(4, CPUS // 4)))
    options = ["-m", "stack and not prove", "-n", workers, "tests/stack"]
    return commands.pytest([*options, *arguments], _with_servers())


def prove(commands: Commands, arguments: Sequence[str]) -> Result:
    """The whole of what the other parts prove by a drawn or small part; a full run is recorded.

    The tests marked ``postgresql`` run on SQLite first.
    """
    if not arguments:
        marks = ["-m", "postgresql and not prove", "-n", str(min(4, CPUS)), *DATABASE_TESTS]
        sqlite = commands.pytest(marks, {**_own_services(), "OMP_NUM_THREADS": "1"})
        if sqlite.code:
            return sqlite
    result = commands.pytest(["-m", "prove", "-n", "1", *arguments], _with_servers())
    if not arguments and result.cases:
        describe = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
        when = time.strftime("%Y-%m-%d", time.gmtime())
        conditions = f"{when}, commit {commit.stdout.strip()}, {CPUS} cores: {result.counts}"
        report.write_proofs(ROOT / "tests" / "PROOFS.md", result.cases, conditions)
    return result


def _with_servers() -> dict[str, str]:
    env = _own_services()
    for name in ("DATABASE_URL", "REDIS_URL"):
        if _server(name):
            env[f"TEST_{name}"] = _server(name)
    if chromium := find_or_install():
        env["EDGEWISE_CHROMIUM"] = chromium
    return env


Run = Callable[[Commands, Sequence[str]], Result]
PARTS: Mapping[str, Run] = {
    "lint": lint,
    "types": types,
    "contracts": contracts,
    "unit": unit,
    "postgresql": postgresql,
    "browser": browser,
    "stack": stack,
    "prove": prove,
}
# What ``make test`` runs side by side, and the niceness of each lane: whole systems go first,
# and the other lane takes the time that they wait. The part that uses every core comes last.
LANES: Mapping[int, Sequence[str]] = {
    0: ("stack",),
    5: ("lint", "contracts", "types", "browser", "postgresql", "unit"),
}
WITH_PROGRAMS = {"unit", "postgresql", "stack", "prove"}
WITH_BROWSER = {"browser", "stack", "prove"}


class Lanes:
    """Parts side by side. ``rows`` grows as they end."""

    def __init__(self, folder: Path) -> None:
        self.rows: list[Row] = []
        self.started: dict[str, float] = {}
        self._folder = folder
        self._commands: list[Commands] = []
        self._printing = threading.Lock()
        self._interrupted = threading.Event()

    def run(self) -> None:
        with ThreadPoolExecutor(len(LANES)) as pool:
            lanes = {pool.submit(self._run_lane, *lane) for lane in LANES.items()}
            try:
                self._wait(lanes)
            except KeyboardInterrupt:
                self._interrupted.set()
                for commands in self._commands:
                    commands.end()

    def _run_lane(self, niceness: int, names: Sequence[str]) -> None:
        for name in names:
            if self._interrupted.is_set() or self._run_part(name, niceness):
                return

    def _run_part(self, name: str, niceness: int) -> int:
        commands = Commands(self._folder / name, niceness)
        self._commands.append(commands)
        row = timed(name, commands, [], self.started)
        with self._printing:
            print(f"\n== {name}\n{(self._folder / name).read_text(errors='replace')}", flush=True)
        self.rows.append(row)
        return row.result.code

    def _wait(self, lanes: set[Future[None]]) -> None:
        """Say now and then what is still running, as some callers end what is silent for long."""
        while lanes:
            ended, lanes = wait(lanes, STILL_RUNNING_S, FIRST_COMPLETED)
            for lane in ended:
                lane.result()
            now, over = time.monotonic(), {row.name for row in self.rows}
            running = {name: now - at for name, at in self.started.items() if name not in over}
            if running and not ended:
                names = ", ".join(
                    f"{name} for {seconds:.0f} s" for name, seconds in running.items()
                )
                with self._printing:
                    print(f"== running: {names}", flush=True)


def timed(
    name: str, commands: Commands, arguments: Sequence[str], started: dict[str, float]
) -> Row:
    started[name] = time.monotonic()
    if commands.output:
        commands.output.touch()
    result = PARTS[name](commands, arguments)
    return Row(name, result, time.monotonic() - started[name])


def _prepare(names: set[str]) -> None:
    """Install what the parts need, one after the other."""
    if names & WITH_PROGRAMS:
        packages.ensure()
    if names & WITH_BROWSER:
        find_or_install()


def main(arguments: Sequence[str]) -> int:
    """Run the named parts one by one, or all of ``make test``; returns the exit status."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    names, rest = arguments[:split], arguments[split + 1 :]
    unknown = set(names) - PARTS.keys()
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    selected = list(names) or [name for lane in LANES.values() for name in lane]
    _prepare(set(selected))
    rows = _one_by_one(names, rest) if names else _side_by_side()
    ended = {row.name for row in rows}
    print("\n" + report.summary(rows, [name for name in selected if name not in ended]), flush=True)
    codes = [row.result.code for row in rows if row.result.code]
    return codes[0] if codes else (0 if len(rows) == len(selected) else INTERRUPTED)


def _side_by_side() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="edgewise-parts-") as folder:
        lanes = Lanes(Path(folder))
        lanes.run()
        return lanes.rows


def _one_by_one(names: Sequence[str], arguments: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        print(f"\n== {name}", flush=True)
        try:
            rows.append(timed(name, Commands(), arguments, {}))
        except KeyboardInterrupt:
            rows.append(Row(name, Result(INTERRUPTED, None, "interrupted"), 0))
        if rows[-1].result.code:
            break
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
