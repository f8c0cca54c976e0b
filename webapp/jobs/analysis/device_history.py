"""The devices table: search, sorting and the figures of each row, in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, Prefetch, QuerySet

from webapp.common.units import number, plausible
from webapp.devices.models import Dataset, Device
from webapp.jobs.analysis.device_metrics import training_figures
from webapp.jobs.models import Assignment

PAGE = 50


@dataclass(frozen=True)
class DeviceRow:
    """A device with the figures in its row of the table."""

    device: Device
    accelerator: str
    memory_bytes: float | None
    peak_flops: float | None
    precision: str
    link_bps: float | None
    datasets: list[Dataset]
    last: Assignment | None

    @property
    def mfu(self) -> float | None:
        return training_figures(self.last).mfu if self.last else None


def best_peak(profile: dict[str, Any]) -> tuple[float | None, str]:
    """The highest measured peak in FLOP/s, and its precision."""
    peaks = peaks_of(profile)
    if not peaks:
        return None, ""
    precision = max(peaks, key=lambda name: peaks[name])
    return peaks[precision], precision


def peaks_of(profile: dict[str, Any]) -> dict[str, float]:
    """Measured FLOP/s by precision."""
    peaks = profile.get("peak_flops")
    read = {k: plausible(v) for k, v in peaks.items()} if isinstance(peaks, dict) else {}
    return {precision: peak for precision, peak in read.items() if peak}


def memory_of(profile: dict[str, Any]) -> float | None:
    """Bytes that training can use: of the accelerator if there is one."""
    return plausible(profile.get("accelerator_memory_bytes")) or plausible(
        profile.get("memory_bytes")
    )


def link_bps(figures: dict[str, Any], down: int) -> float | None:
    """Bytes per second of the device's last download."""
    seconds = number(figures.get("download_s")) or 0
    return down / seconds if seconds > 0 and down > 0 else None


def device_rows(devices: Iterable[Device], last: dict[int, Assignment]) -> list[DeviceRow]:
    rows = []
    for device in devices:
        profile, newest = device.profile, last.get(device.pk)
        peak, precision = best_peak(profile)
        link = link_bps(newest.metrics, newest.bytes_down) if newest else None
        rows.append(
            DeviceRow(
                device=device,
                accelerator=str(profile.get("accelerator") or profile.get("cpu") or ""),
                memory_bytes=memory_of(profile),
                peak_flops=peak,
                precision=precision,
                link_bps=link,
                datasets=list(device.datasets.all()),
                last=newest,
            )
        )
    return rows


PRESENCE_ORDER = ("busy", "online", "offline", "never seen", "revoked")
SORTS: dict[str, Callable[[Device], Any]] = {
    "name": lambda device: device.name.lower(),
    "presence": lambda device: PRESENCE_ORDER.index(device.presence),
    "memory": lambda device: -(memory_of(device.profile) or 0),
    "peak": lambda device: -(best_peak(device.profile)[0] or 0),
    "seen": lambda device: -(device.last_seen_at.timestamp() if device.last_seen_at else 0),
}


DATASETS = Prefetch("datasets", queryset=Dataset.objects.order_by("id"))


def devices_with_data() -> QuerySet[Device]:
    return Device.objects.prefetch_related(DATASETS)


def enrolled_devices() -> list[Device]:
    """All devices that are not revoked, by name, with their datasets.

    Grouped by hand: a prefetch creates a query object per device, which is slow for a thousand.
    """
    devices = list(Device.objects.filter(revoked_at=None).order_by("name"))
    datasets: dict[int, list[Dataset]] = {device.pk: [] for device in devices}
    for dataset in Dataset.objects.filter(device__revoked_at=None).order_by("id"):
        datasets.setdefault(dataset.device_id, []).append(dataset)
    for device in devices:
        set_prefetched(device, datasets=datasets[device.pk])
    return devices


def set_prefetched(row: Model, **related: list[Any]) -> None:
    """Give a row related rows that have been read already, as a prefetch would."""
    cache: dict[str, Any] = row.__dict__.setdefault("_prefetched_objects_cache", {})
    cache.update(related)


def search_devices(query: str, presence: str, sort: str) -> list[Device]:
    """Devices with all words of ``query`` in their name, hardware or data, sorted.

    ``presence``: only devices in that state; "" for all that are not revoked.
    """
    words = query.lower().split()
    matches = []
    for device in devices_with_data() if words else Device.objects.all():
        in_state = device.presence == presence if presence else device.revoked_at is None
        profile = device.profile
        parts = [device.name, device.role, device.presence, str(device.ability or "")]
        parts += [str(profile.get(key, "")) for key in ("kind", "accelerator", "cpu", "os")]
        if words:
            parts += [f"{dataset.name} {dataset.domain}" for dataset in device.datasets.all()]
        text = " ".join(parts).lower()
        if in_state and all(word in text for word in words):
            matches.append(device)
    return sorted(matches, key=SORTS.get(sort, SORTS["name"]))
