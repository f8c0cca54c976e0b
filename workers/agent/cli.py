"""``python -m workers.agent``: enrol a device, run its agent, look at it, leave."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fedcore.errors import EdgewiseError
from workers.agent import enrol, status
from workers.agent.agent_settings import (
    LOG_LEVELS,
    VERSION,
    AgentSettings,
    prepare_state_dir,
    read_settings,
    set_up_logging,
)
from workers.agent.profile import local_datasets, probe
from workers.agent.state import credential as credentials

Command = Callable[[argparse.Namespace, AgentSettings], int]


def main(argv: Sequence[str] | None = None, make_trainer: Any = None) -> int:
    """Returns the exit code: 0 done, 2 not possible as asked, 3 the credential was revoked.

    ``make_trainer`` takes the place of ``run.real_trainer``.
    """
    args = build_parser().parse_args(argv)
    args.make_trainer = make_trainer
    try:
        settings = read_settings(args.state_dir, args.threads, args.log_level)
        set_up_logging(settings.log_level)
        command: Command = args.command
        return command(args, settings)
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.agent", description=__doc__)
    parser.add_argument("--version", action="version", version=VERSION)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state-dir", metavar="DIR", help="credential, outbox and caches")
    common.add_argument("--threads", type=int, metavar="N", help="CPU threads; 0: all cores")
    common.add_argument("--log-level", choices=LOG_LEVELS)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, help: str, command: Command, *aliases: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=help, parents=[common], aliases=list(aliases))
        found.set_defaults(command=command)
        return found

    enroll = add("enroll", "exchange a one-time token for a credential", _enroll, "enrol")
    enroll.add_argument("--server", required=True, metavar="URL")
    enroll.add_argument("--token", required=True, help="from the page 'Enrol a device'")
    enroll.add_argument("--name", default="", help="where the token does not name the device")
    enroll.add_argument("--dataset", action="append", default=[], metavar=local_datasets.SHAPE)
    enroll.add_argument("--force", action="store_true", help="replace an existing credential")
    runs = add("run", "work for the server until stopped", _run)
    runs.add_argument("--server", default="", metavar="URL", help="where the server has moved to")
    runs.add_argument(
        "--link", default="", metavar="NAME", help="emulate it, such as lte; instant: none"
    )
    shown = add("status", "what this device is enrolled for, and does", _status)
    shown.add_argument("--json", action="store_true")
    leave = add("unenroll", "leave the server and forget the credential", _unenroll, "unenrol")
    leave.add_argument("--force", action="store_true", help="even if the server does not answer")
    probed = add("probe", "measure this device again", _probe)
    probed.add_argument("--json", action="store_true")
    _add_dataset_commands(add("dataset", "add, remove or list datasets", _dataset_list))
    return parser


def _add_dataset_commands(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION")
    add = actions.add_parser("add", help=f"add {local_datasets.SHAPE}")
    add.add_argument("dataset", nargs="+", metavar=local_datasets.SHAPE)
    add.set_defaults(command=_dataset_add)
    remove = actions.add_parser("remove", help="forget a dataset; its file stays")
    remove.add_argument("name", nargs="+")
    remove.set_defaults(command=_dataset_remove)
    actions.add_parser("list", help="what this device holds").set_defaults(command=_dataset_list)


def _enroll(args: argparse.Namespace, settings: AgentSettings) -> int:
    prepare_state_dir(settings)
    asked = enrol.Asked(args.server, args.token, args.name, tuple(args.dataset), args.force)
    found = enrol.enrol(settings, asked)
    print(f"enrolled as {found.name!r} (device {found.device_id}) at {found.server}")
    print("start it with: python -m workers.agent run" + _where(args))
    return 0


def _where(args: argparse.Namespace) -> str:
    return f" --state-dir {args.state_dir}" if args.state_dir else ""


def _run(args: argparse.Namespace, settings: AgentSettings) -> int:
    from workers.agent import run

    code = run.run(settings, args.make_trainer or run.real_trainer, args.server, args.link)
    if code == run.EXIT_RESTART:
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return code


def _status(args: argparse.Namespace, settings: AgentSettings) -> int:
    found = status.status(settings)
    print(json.dumps(found, indent=1) if args.json else status.as_text(found))
    return 0


def _unenroll(args: argparse.Namespace, settings: AgentSettings) -> int:
    print(enrol.leave(settings, args.force))
    return 0


def _probe(args: argparse.Namespace, settings: AgentSettings) -> int:
    prepare_state_dir(settings)
    found = probe.profile(settings, again=True)
    print(json.dumps(found, indent=1) if args.json else status.profile_text(found))
    return 0


def _dataset_list(args: argparse.Namespace, settings: AgentSettings) -> int:
    del args
    for item in local_datasets.load(settings.state_dir):
        print(f"{item.name}\t{item.source}\t{item.domain}")
    return 0


def _dataset_add(args: argparse.Namespace, settings: AgentSettings) -> int:
    credentials.require(settings.state_dir)
    new = local_datasets.parse_all(args.dataset)
    names = {item.name for item in new}
    kept = [item for item in local_datasets.load(settings.state_dir) if item.name not in names]
    local_datasets.describe_all(settings.state_dir, [*kept, *new], settings.cache)
    print("added; the server learns of it when the agent starts next")
    return 0


def _dataset_remove(args: argparse.Namespace, settings: AgentSettings) -> int:
    held = local_datasets.load(settings.state_dir)
    unknown = set(args.name) - {item.name for item in held}
    if unknown:
        names = ", ".join(item.name for item in held) or "none"
        raise EdgewiseError(f"no dataset {', '.join(sorted(unknown))} here; it holds: {names}")
    kept = [item for item in held if item.name not in args.name]
    local_datasets.describe_all(settings.state_dir, kept, settings.cache)
    print("removed; the server learns of it when the agent starts next")
    return 0
