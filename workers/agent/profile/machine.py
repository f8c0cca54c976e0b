"""Names of this machine and its processor."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_kind() -> str:
    """The board's name (Raspberry Pi, Jetson), else the product, else the architecture."""
    for path in ("/proc/device-tree/model", "/sys/devices/virtual/dmi/id/product_name"):
        try:
            text = Path(path).read_text("utf-8", "replace").strip("\0 \n")
        except OSError:
            continue
        if text:
            return text[:100]
    return f"{platform.system()} {platform.machine()}"
