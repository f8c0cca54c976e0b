"""``python -m workers.agent.power [UUID]`` prints the sensor that measures this device, if any.

Run as a separate process, because a driver's library must not be loaded before the agent forks.
The argument is the UUID of the GPU that training uses, ``-`` where torch does not know it.
"""

from __future__ import annotations

import sys

from workers.agent.power.sensor import Gpu
from workers.agent.power.sensor_kinds import choose

if __name__ == "__main__":
    used = len(sys.argv) > 1
    uuid = sys.argv[1] if used and sys.argv[1] != "-" else ""
    sensor = choose(Gpu(used, uuid))
    print(sensor.name if sensor else "")
