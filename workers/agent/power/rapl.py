"""RAPL of Intel and AMD processors by Linux's powercap: counters of microjoules that wrap.

Files as in https://docs.kernel.org/power/powercap/powercap.html. Since 2020 only root may read them
(CVE-2020-8694): who can read them finely can guess what other programs compute.
"""

from __future__ import annotations

from pathlib import Path

from workers.agent.power.sensor import Counter, Denied, Gpu, Sensor, name_of, number_of

HIGHEST_W = 3000.0
# Not intel-rapl-mmio, which counts the same packages once more, and not psys, which takes in what
# each maker of boards likes.
ZONES = "sys/class/powercap/intel-rapl:*"
GRANT = (
    "only root may read the processor's energy counters. To let the agent's group do so: "
    "`sudo chgrp edgewise /sys/class/powercap/intel-rapl:*/energy_uj && sudo chmod g+r "
    "/sys/class/powercap/intel-rapl:*/energy_uj`, and after each start of the machine by a line "
    "in /etc/tmpfiles.d (docs/guides/measure-power.md)"
)


def find(root: Path, gpu: Gpu) -> Sensor | None:
    """Packages, and memory where it is counted apart. Raises Denied where root alone may read."""
    del gpu
    zones = [zone for zone in sorted(root.glob(ZONES)) if _counts(name_of(zone / "name"))]
    if not any(name_of(zone / "name").startswith("package") for zone in zones):
        return None
    try:
        counters = tuple(_counter(zone) for zone in zones)
    except PermissionError:
        raise Denied(GRANT) from None
    memory = any(name_of(zone / "name") == "dram" for zone in zones)
    return Sensor(
        "rapl", f"the processor{' and memory' if memory else ''}", HIGHEST_W, None, counters
    )


def _counts(name: str) -> bool:
    return name.startswith("package") or name == "dram"


def _counter(zone: Path) -> Counter:
    path = zone / "energy_uj"
    number_of(path)
    return Counter(lambda: number_of(path) / 1e6, number_of(zone / "max_energy_range_uj") / 1e6)
