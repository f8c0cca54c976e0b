"""What can be killed, and how it is started again."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

from workers.stack.stack import BROKER, SERVER_PARTS, Stack

AGENT = "agent-"
MAIN, WORKER, CHILD, ALL = "agent", "agent's worker", "training process", "everything"


def targets(stack: Stack) -> list[str]:
    """Everything of this stack that may be killed."""
    brokers = [f"{BROKER}{name}" for name in stack.managed_brokers]
    return [*SERVER_PARTS, *brokers, MAIN, WORKER, CHILD, ALL]


def kill(stack: Stack, target: str, devices: Sequence[str], pick: float) -> list[str] | None:
    """SIGKILL a target; returns what has to be started again, None where nothing was there."""
    device = AGENT + devices[int(pick * len(devices))]
    if target in (WORKER, CHILD):
        return _kill_within_agent(stack, target, device)
    names = {MAIN: [device], ALL: list(stack.processes.running)}.get(target, [target])
    if not all(stack.processes.is_alive(name) for name in names):
        return None
    for name in names:
        stack.processes.kill(name)
    return names


def _kill_within_agent(stack: Stack, target: str, device: str) -> list[str] | None:
    """The agent's Celery worker, or that one's child; the agent starts them again by itself."""
    if not stack.processes.is_alive(device):
        return None
    victims: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        workers = psutil.Process(stack.processes.running[device].pid).children()
        children = [child for worker in workers for child in worker.children()]
        victims = workers if target == WORKER else children
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    return [] if victims else None


def start_again(stack: Stack, names: Sequence[str]) -> None:
    """Brokers first: the others look for them at once."""
    for name in sorted(names, key=lambda name: not name.startswith(BROKER)):
        if name.startswith(BROKER):
            stack.start_broker(name.removeprefix(BROKER))
        elif name.startswith(AGENT):
            stack.start_agent(name.removeprefix(AGENT))
        else:
            stack.start_part(name)
