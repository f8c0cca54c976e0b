"""NVIDIA GPUs through NVML, their driver's library: an energy counter, or the power.

Calls as in https://docs.nvidia.com/deploy/nvml-api. Volta and newer count millijoules; older GPUs
report milliwatts.
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
    """An error code from NVML, or a missing function."""


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class Card:
    """One GPU. Raises NvmlError where the driver has none."""

    def __init__(self, library: Any, uuid: str) -> None:
        self._library = library
        self._call("nvmlInit_v2")
        self._handle = ctypes.c_void_p()
        handle = ctypes.byref(self._handle)
        if uuid:
            self._call("nvmlDeviceGetHandleByUUID", uuid.encode(), handle)
            return
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if count.value != 1:
            raise NvmlError(f"{count.value} GPUs, and torch does not say which one it uses")
        self._call("nvmlDeviceGetHandleByIndex_v2", 0, handle)

    def joules(self) -> float:
        value = ctypes.c_ulonglong()
        self._query("nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(value))
        return value.value / 1e3

    def watts(self) -> float:
        value = ctypes.c_uint()
        self._query("nvmlDeviceGetPowerUsage", ctypes.byref(value))
        return float(value.value) / 1e3

    def utilisation(self) -> float:
        """The share of time in which a kernel ran, 0 to 1."""
        value = _Utilisation()
        self._query("nvmlDeviceGetUtilizationRates", ctypes.byref(value))
        return min(1.0, float(value.gpu) / 100)

    def is_sliced(self) -> bool:
        """Whether the GPU is partitioned (MIG), so that its power is not ours alone."""
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        try:
            self._query("nvmlDeviceGetMigMode", ctypes.byref(current), ctypes.byref(pending))
        except NvmlError:
            return False
        return current.value == MIG_ENABLED

    def _query(self, name: str, *values: Any) -> None:
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
    """The GPU that training uses, if its driver answers."""
    path = next(root.glob(f"usr/lib/*/{LIBRARY}"), None)
    try:
        return Card(_library(str(path or LIBRARY)), gpu.uuid) if gpu.used else None
    except OSError:
        return None


def find(root: Path, gpu: Gpu) -> Sensor | None:
    used_card = card(root, gpu)
    if used_card is None or used_card.is_sliced():
        return None
    covers = "the GPU alone"
    try:
        used_card.joules()
        return Sensor("nvml", covers, HIGHEST_W, None, (Counter(used_card.joules),))
    except NvmlError:
        pass
    try:
        used_card.watts()
    except NvmlError:
        return None
    return Sensor("nvml", covers, HIGHEST_W, watts=used_card.watts)
