"""``python -m workers.agent.power [PCI]`` prints which sensor measures this device, or nothing.

A process of its own, for a driver's library must not be loaded before the agent forks. The argument
is the address of the card that training uses, ``-`` where torch does not tell it.
"""

from __future__ import annotations

import sys

from workers.agent.power.sensor import Gpu
from workers.agent.power.table import choose

if __name__ == "__main__":
    used = len(sys.argv) > 1
    sensor = choose(Gpu(used, sys.argv[1].strip("-") if used else ""))
    print(sensor.name if sensor else "")
