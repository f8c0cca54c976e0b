"""Link profiles: transfer time and cost between a device and its server.

Rates are the bytes per second that transfers reach, not those of the radio. They vary from place to
place far more than these figures suggest, so measure your own if it matters. ``source`` names the
origin of each figure, and which ones are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedcore.errors import Fault, SpecError

MBIT = 1e6 / 8
SLOWEST_BPS = 1e-3  # a byte in a quarter of an hour; slower links are refused
CHOSEN = "our choice of a round figure"


@dataclass(frozen=True)
class Link:
    """Bytes per second each way, and seconds until the first byte of a response arrives.

    ``loss``: share of packets sent twice; ``cost_per_gb``: US dollars per 1e9 bytes (0: flat rate).
    Raises SpecError with every error: a rate must be above 0.
    """

    up_bps: float
    down_bps: float
    delay_s: float
    loss: float = 0.0
    cost_per_gb: float = 0.0
    name: str = ""
    source: str = CHOSEN

    def __post_init__(self) -> None:
        where = f"link {self.name}".strip()
        faults = [
            Fault(f"{where}: {name}", f"must be bytes per second above 0, not {rate!r:.40}")
            for name, rate in (("up_bps", self.up_bps), ("down_bps", self.down_bps))
            if not (_is_number(rate) and rate >= SLOWEST_BPS)
        ]
        for name, value in (("delay_s", self.delay_s), ("cost_per_gb", self.cost_per_gb)):
            if not (_is_number(value) and 0 <= value < math.inf):
                faults.append(Fault(f"{where}: {name}", f"must be 0 or more, not {value!r}"))
        if not (_is_number(self.loss) and 0 <= self.loss < 1):
            text = f"must be a share from 0 to below 1, not {self.loss!r}"
            faults.append(Fault(f"{where}: loss", text))
        if faults:
            raise SpecError(faults)

    def up_s(self, size: float) -> float:
        return self.delay_s + size / (self.up_bps * (1 - self.loss))

    def down_s(self, size: float) -> float:
        return self.delay_s + size / (self.down_bps * (1 - self.loss))

    def cost(self, size: float) -> float:
        """US dollars for that many bytes, both ways together."""
        return self.cost_per_gb * size / 1e9


def _is_number(value: object) -> bool:
    """Whether this is a number: infinity is, NaN and integers beyond any float are not."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return value == math.inf or abs(value) < 1e300


def _radio(name: str, mbit: float, source: str) -> Link:
    """Wi-Fi with two streams: transfers reach about half of the rate on the air."""
    rate = 0.5 * mbit * MBIT
    return Link(rate, rate, 0.005, 0.0, 0.0, name, f"{source}; half of it, and 5 ms: {CHOSEN}")


_CELLULAR = "https://blog.mbedded.ninja/electronics/communication-protocols/cellular"
_GB_WORLD = "price: https://www.cable.co.uk/mobiles/worldwide-data-pricing/ (2022, all countries)"
_GB_IOT = "price: about 10 EUR for 500 MB, https://1nce.com/"
_MBA = (
    f"loss: {CHOSEN} within the best class (below 0.4 %) of the FCC, "
    "https://www.fcc.gov/reports-research/reports/measuring-broadband-america/"
)
_STARLINK = "https://blog.apnic.net/2022/11/28/fact-checking-starlinks-performance-figures"
_OOKLA_5G = "Ookla, global medians: down Q3 2023, up Q3 2021, https://www.ookla.com/articles"
_OOKLA_LTE = "Ookla, United States 2018, means, https://www.speedtest.net/reports/united-states/"

INSTANT = Link(math.inf, math.inf, 0.0, name="instant", source="no link at all")
_NAMED = (
    INSTANT,
    Link(62e3 / 8, 26e3 / 8, 1.6, 0.0, 20.0, "nb-iot", f"Cat NB1 peaks: {_CELLULAR}; {_GB_IOT}"),
    Link(MBIT, MBIT, 0.015, 0.0, 20.0, "lte-m", f"Cat M1 peaks: {_CELLULAR}; {_GB_IOT}"),
    Link(8.63 * MBIT, 27.33 * MBIT, 0.06, 0.0, 3.12, "lte",
         f"{_OOKLA_LTE}; {_GB_WORLD}; 60 ms: {CHOSEN}"),
    Link(21.08 * MBIT, 203.04 * MBIT, 0.03, 0.0, 3.12, "5g",
         f"{_OOKLA_5G}; {_GB_WORLD}; 30 ms: {CHOSEN}"),
    _radio("wifi-4", 300.0, "IEEE 802.11n, 40 MHz: 300 Mbit/s"),
    _radio("wifi-5", 866.7, "IEEE 802.11ac, 80 MHz: 866.7 Mbit/s"),
    _radio("wifi-6", 1201.0, "IEEE 802.11ax, 80 MHz: 1,201 Mbit/s"),
    Link(10 * MBIT, 50 * MBIT, 0.03, 0.001, 0.0, "dsl",
         f"VDSL2 (ITU-T G.993.2) tariff of 50 Mbit/s; {_MBA}; 30 ms: {CHOSEN}"),
    Link(20 * MBIT, 200 * MBIT, 0.02, 0.001, 0.0, "cable",
         f"DOCSIS tariff of 200 Mbit/s, {CHOSEN}; {_MBA}"),
    Link(500 * MBIT, 500 * MBIT, 0.01, 0.0005, 0.0, "fibre",
         f"fibre tariff of 500 Mbit/s, {CHOSEN}; {_MBA}"),
    Link(11.7e6, 11.7e6, 0.001, name="ethernet-100m",
         source="IEEE 802.3u less headers (94 %); 1 ms: " + CHOSEN),
    Link(117e6, 117e6, 0.001, name="ethernet-1g",
         source="IEEE 802.3ab less headers (94 %); 1 ms: " + CHOSEN),
    Link(17 * MBIT, 178 * MBIT, 0.05, 0.004, 0.0, "satellite-leo",
         f"Starlink, medians: {_STARLINK}; loss: {CHOSEN}"),
    Link(5 * MBIT, 80 * MBIT, 0.6, 0.0, 0.0, "satellite-geo",
         f"geostationary access of 100 and 10 Mbit/s, four fifths and half of it: {_STARLINK}; "
         "600 ms is twice the way there and back"),
    Link(10e6, 10e6, 0.01, name="wifi"),
    Link(1.25e6, 4e6, 0.06, name="4g"),
    Link(0.1e6, 0.5e6, 0.2, name="3g"),
)  # fmt: skip
LINKS: Mapping[str, Link] = {link.name: link for link in _NAMED} | {
    "lan": next(link for link in _NAMED if link.name == "ethernet-1g")
}
