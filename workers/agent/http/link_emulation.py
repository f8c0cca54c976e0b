"""The link that this device emulates (``throttle``); the last choice is remembered."""

from __future__ import annotations

import math
from pathlib import Path

from fedcore.errors import SpecError
from fedcore.hardware.links import INSTANT, LINKS, Link
from workers.agent.agent_errors import AgentError
from workers.agent.agent_settings import AgentSettings
from workers.agent.http.throttle import LinkThrottle
from workers.agent.state.files import read_json, write_json

FILE = "link.json"
SHARED_FILE = "link"  # in the folder of the main process's socket


def parse_link(name: str) -> Link:
    """Raises AgentError for an unknown name, or a link without any throughput."""
    try:
        link = LINKS[name.strip().lower()]
    except KeyError:
        raise AgentError(f"unknown link {name!r}; give one of {', '.join(LINKS)}") from None
    except SpecError as error:
        raise AgentError(str(error)) from error
    check(link)
    return link


def check(link: Link) -> None:
    """Raises AgentError where nothing would ever arrive."""
    for direction, rate in (("up", link.up_bps), ("down", link.down_bps)):
        rate *= 1 - link.loss
        if math.isnan(rate) or rate <= 0:
            raise AgentError(f"the link {link.name!r} carries nothing {direction}; choose another")


def choose_link(settings: AgentSettings, option: str = "") -> Link:
    """The option, which is remembered; else the environment's link; else the remembered one."""
    path = settings.state_dir / FILE
    if option:
        link = parse_link(option)
        write_json(path, {"link": link.name})
        return link
    stored = read_json(path)
    name = settings.link or (str(stored.get("link") or "") if isinstance(stored, dict) else "")
    return parse_link(name) if name else INSTANT


def throttle_for(link: Link, shared_file: Path | None = None) -> LinkThrottle | None:
    """``shared_file``: what the processes of one device share of the link's state."""
    return None if link == INSTANT else LinkThrottle(link, shared_file=shared_file)
