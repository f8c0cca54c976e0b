"""Which link this device pretends to have, see ``pace``; what was asked for once is remembered."""

from __future__ import annotations

import math

from fedcore.errors import SpecError
from fedcore.hardware.links import INSTANT, LINKS, Link
from workers.agent.agent_errors import AgentError
from workers.agent.agent_settings import AgentSettings
from workers.agent.http.throttle import LinkThrottle
from workers.agent.state.files import read_json, write_json

FILE = "link.json"


def known(name: str) -> Link:
    """Raises AgentError for a name that is in no table, or a link that carries nothing."""
    try:
        link = LINKS[name.strip().lower()]
    except KeyError:
        raise AgentError(f"no link {name!r} is known; give one of {', '.join(LINKS)}") from None
    except SpecError as error:
        raise AgentError(str(error)) from error
    check(link)
    return link


def check(link: Link) -> None:
    """Raises AgentError where nothing would ever arrive."""
    for way, rate in (("up", link.up_bps), ("down", link.down_bps)):
        rate *= 1 - link.loss
        if math.isnan(rate) or rate <= 0:
            raise AgentError(f"the link {link.name!r} carries nothing {way}; take another one")


def settle(settings: AgentSettings, option: str = "") -> Link:
    """The option, which is remembered; else the environment; else what was asked for before."""
    path = settings.state_dir / FILE
    if option:
        link = known(option)
        write_json(path, {"link": link.name})
        return link
    kept = read_json(path)
    name = settings.link or (str(kept.get("link") or "") if isinstance(kept, dict) else "")
    return known(name) if name else INSTANT


def pace_of(link: Link) -> LinkThrottle | None:
    return None if link == INSTANT else LinkThrottle(link)
