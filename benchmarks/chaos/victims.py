"""What can be killed, and how it is started again."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

from workers.stack.stack import BROKER, SERVER_PARTS, Stack

AGENT = "agent-"
SITE_BROKER, DEVICE_BROKER = f"{BROKER}site", f"{BROKER}devices"
CHILD, ALL = "training process", "everything"


def targets(stack: Stack) -> list[str]:
    """Everything of this stack that may be killed."""
    brokers = [f"{BROKER}{name}" for name in stack.managed_brokers]
    return [*SERVER_PARTS, *brokers, "agent", CHILD, ALL]


def kill(stack: Stack, target: str, devices: Sequence[str], pick: float) -> list[str] | None:
    """SIGKILL a target; returns what has to be started again, None where nothing was there."""
    device = AGENT + devices[int(pick * len(devices))]
    if target == CHILD:
        # The agent starts its training process again by itself.
        if not stack.processes.is_alive(device):
            return None
        children = psutil.Process(stack.processes.running[device].pid).children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
        return [] if children else None
    names = {"agent": [device], ALL: list(stack.processes.running)}.get(target, [target])
    if not all(stack.processes.is_alive(name) for name in names):
        return None
    for name in names:
        stack.processes.kill(name)
    return names


def start_again(stack: Stack, names: Sequence[str]) -> None:
    """Brokers first: the others look for them at once."""
    for name in sorted(names, key=lambda name: not name.startswith(BROKER)):
        if name.startswith(BROKER):
            stack.start_broker(name.removeprefix(BROKER))
        elif name.startswith(AGENT):
            stack.start_agent(name.removeprefix(AGENT))
        else:
            stack.start_part(name)
