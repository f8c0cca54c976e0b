"""RAPL of Intel and AMD processors, from Linux's powercap: microjoule counters that wrap.

Files as in https://docs.kernel.org/power/powercap/powercap.html. Since 2020 only root may read
them, because fine readings leak what other programs compute (CVE-2020-8694).
"""

from __future__ import annotations

from pathlib import Path

from workers.agent.power.sensor import Counter, Denied, Gpu, Sensor, name_of, number_of

HIGHEST_W = 3000.0
# Not intel-rapl-mmio, which counts the same packages again, and not psys, which differs by board
# vendor.
ZONES = "sys/class/powercap/intel-rapl:*"
GRANT = (
    "only root may read the processor's energy counters. To allow the agent's group: "
    "`sudo chgrp edgewise /sys/class/powercap/intel-rapl:*/energy_uj && sudo chmod g+r "
    "/sys/class/powercap/intel-rapl:*/energy_uj`; to repeat that at every boot, add a line to "
    "/etc/tmpfiles.d (docs/guides/measure-power.md)"
)


def find(root: Path, gpu: Gpu) -> Sensor | None:
    """Packages, and memory where counted separately. Raises Denied where only root may read."""
    del gpu
    names = {zone: name_of(zone / "name") for zone in sorted(root.glob(ZONES))}
    packages = [zone for zone, name in names.items() if name.startswith("package")]
    memory = [zone for zone, name in names.items() if name == "dram"]
    if not packages:
        return None
    try:
        counters = tuple(_counter(zone) for zone in names if zone in packages + memory)
    except PermissionError:
        raise Denied(GRANT) from None
    covers = "the processor and memory" if memory else "the processor"
    return Sensor("rapl", covers, HIGHEST_W, None, counters)


def _counter(zone: Path) -> Counter:
    path = zone / "energy_uj"
    number_of(path)
    return Counter(lambda: number_of(path) / 1e6, number_of(zone / "max_energy_range_uj") / 1e6)
