"""``python -m workers.agent``: enrol a device, run its agent, show its status, leave."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

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
from workers.agent.state import credentials

Command = Callable[[argparse.Namespace, AgentSettings], int]


def main(argv: Sequence[str] | None = None, trainer: str = "") -> int:
    """Returns the exit code: 0 done, 2 not possible, 3 the credential was revoked.

    ``trainer``, as ``module:function``, replaces the real one.
    """
    args = build_parser().parse_args(argv)
    try:
        settings = read_settings(args.state_dir, args.threads, args.log_level)
        if trainer:
            settings = replace(settings, trainer=trainer)
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
        subparser = commands.add_parser(name, help=help, parents=[common], aliases=list(aliases))
        subparser.set_defaults(command=command)
        return subparser

    enroll = add("enroll", "exchange a one-time token for a credential", _enroll, "enrol")
    enroll.add_argument("--server", required=True, metavar="URL")
    enroll.add_argument("--token", required=True, help="from the page 'Enrol a device'")
    enroll.add_argument("--name", default="", help="if the token does not name the device")
    enroll.add_argument("--dataset", action="append", default=[], metavar=local_datasets.SHAPE)
    enroll.add_argument("--force", action="store_true", help="replace an existing credential")
    run = add("run", "work for the server until stopped", _run)
    run.add_argument("--server", default="", metavar="URL", help="the server's new address")
    run.add_argument(
        "--link", default="", metavar="NAME", help="link to emulate, such as lte; instant: none"
    )
    show = add("status", "show enrolment, activity and hardware", _status)
    show.add_argument("--json", action="store_true")
    leave = add("unenroll", "leave the server, forget the credential", _unenroll, "unenrol")
    leave.add_argument("--force", action="store_true", help="even if the server does not answer")
    measure = add("probe", "measure this device again", _probe)
    measure.add_argument("--json", action="store_true")
    datasets = add("dataset", "add, remove or list datasets", _dataset_list)
    actions = datasets.add_subparsers(metavar="ACTION")
    add_one = actions.add_parser("add", help=f"add {local_datasets.SHAPE}")
    add_one.add_argument("dataset", nargs="+", metavar=local_datasets.SHAPE)
    add_one.set_defaults(command=_dataset_add)
    remove = actions.add_parser("remove", help="forget a dataset; its file stays")
    remove.add_argument("name", nargs="+")
    remove.set_defaults(command=_dataset_remove)
    actions.add_parser("list", help="list this device's datasets").set_defaults(
        command=_dataset_list
    )
    return parser


def _enroll(args: argparse.Namespace, settings: AgentSettings) -> int:
    prepare_state_dir(settings)
    options = enrol.EnrolmentOptions(
        args.server, args.token, args.name, tuple(args.dataset), args.force
    )
    credential = enrol.enrol(settings, options)
    state_dir = f" --state-dir {args.state_dir}" if args.state_dir else ""
    print(f"enrolled as {credential.name!r} (device {credential.device_id}) at {credential.server}")
    print(f"start it with: python -m workers.agent run{state_dir}")
    return 0


def _run(args: argparse.Namespace, settings: AgentSettings) -> int:
    from workers.agent import run

    return run.run(settings, args.server, args.link)


def _status(args: argparse.Namespace, settings: AgentSettings) -> int:
    values = status.status(settings)
    print(json.dumps(values, indent=1) if args.json else status.as_text(values))
    return 0


def _unenroll(args: argparse.Namespace, settings: AgentSettings) -> int:
    print(enrol.leave(settings, args.force))
    return 0


def _probe(args: argparse.Namespace, settings: AgentSettings) -> int:
    prepare_state_dir(settings)
    profile = probe.profile(settings, again=True)
    print(json.dumps(profile, indent=1) if args.json else status.profile_text(profile))
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
    others = [item for item in local_datasets.load(settings.state_dir) if item.name not in names]
    local_datasets.describe_all(settings.state_dir, [*others, *new], settings.cache)
    print("added; the server learns of it at the agent's next start")
    return 0


def _dataset_remove(args: argparse.Namespace, settings: AgentSettings) -> int:
    datasets = local_datasets.load(settings.state_dir)
    unknown = set(args.name) - {item.name for item in datasets}
    if unknown:
        names = ", ".join(item.name for item in datasets) or "none"
        raise EdgewiseError(
            f"no dataset {', '.join(sorted(unknown))} on this device; its datasets are: {names}"
        )
    others = [item for item in datasets if item.name not in args.name]
    local_datasets.describe_all(settings.state_dir, others, settings.cache)
    print("removed; the server learns of it at the agent's next start")
    return 0
