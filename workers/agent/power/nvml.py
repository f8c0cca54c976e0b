"""NVIDIA cards by NVML, the library of their driver: a counter of energy, or the power.

Calls as in https://docs.nvidia.com/deploy/nvml-api. Volta and newer count millijoules; older cards
give milliwatts.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

from workers.agent.power.sensor import Counter, Gpu, Sensor

HIGHEST_W = 2000.0
LIBRARY = "libnvidia-ml.so.1"
MIG_ENABLED = 1


class NvmlError(OSError):
    """What NVML answered instead of a number."""


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class Card:
    """One card. Raises NvmlError where the driver gives none."""

    def __init__(self, library: Any, uuid: str) -> None:
        self._library = library
        self._call("nvmlInit_v2")
        self._handle = ctypes.c_void_p()
        where = ctypes.byref(self._handle)
        if uuid:
            self._call("nvmlDeviceGetHandleByUUID", uuid.encode(), where)
            return
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if count.value != 1:
            raise NvmlError(f"{count.value} cards, and torch does not say which one it uses")
        self._call("nvmlDeviceGetHandleByIndex_v2", 0, where)

    def joules(self) -> float:
        value = ctypes.c_ulonglong()
        self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(value))
        return value.value / 1e3

    def watts(self) -> float:
        value = ctypes.c_uint()
        self._ask("nvmlDeviceGetPowerUsage", ctypes.byref(value))
        return float(value.value) / 1e3

    def utilisation(self) -> float:
        """From 0 to 1: the share of time in which a kernel ran."""
        value = _Utilisation()
        self._ask("nvmlDeviceGetUtilizationRates", ctypes.byref(value))
        return min(1.0, float(value.gpu) / 100)

    def is_sliced(self) -> bool:
        """Whether others may work on parts of it (MIG): then its power is not ours alone."""
        now, later = ctypes.c_uint(), ctypes.c_uint()
        try:
            self._ask("nvmlDeviceGetMigMode", ctypes.byref(now), ctypes.byref(later))
        except NvmlError:
            return False
        return now.value == MIG_ENABLED

    def _ask(self, name: str, *values: Any) -> None:
        self._call(name, self._handle, *values)

    def _call(self, name: str, *values: Any) -> None:
        try:
            code = getattr(self._library, name)(*values)
        except AttributeError:
            raise NvmlError(f"this driver has no {name}") from None
        if code:
            raise NvmlError(f"{name} answered {code}")


@lru_cache(maxsize=4)
def _library(path: str) -> Any:
    return ctypes.CDLL(path)


def card(root: Path, gpu: Gpu) -> Card | None:
    """The card that training uses, if its driver can be asked."""
    own = next(root.glob(f"usr/lib/*/{LIBRARY}"), None)
    try:
        return Card(_library(str(own or LIBRARY)), gpu.uuid) if gpu.used else None
    except OSError:
        return None


def find(root: Path, gpu: Gpu) -> Sensor | None:
    found = card(root, gpu)
    if found is None or found.is_sliced():
        return None
    covers = "the graphics card alone"
    try:
        found.joules()
        return Sensor("nvml", covers, HIGHEST_W, None, (Counter(found.joules),))
    except NvmlError:
        pass
    try:
        found.watts()
    except NvmlError:
        return None
    return Sensor("nvml", covers, HIGHEST_W, watts=found.watts)
