"""Estimated cost of a job before its launch: fitting devices, time, bytes, joules, assumptions.

The figures are the planner's (``fedcore.plan``). The coordinator selects the participants later, by
the same rules of data and role.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcore.architecture.sizes import FP32_BYTES, architecture_of
from fedcore.formats.codec_chain import PLAIN
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.device_plan import PHASES, DevicePlan
from fedcore.plan.cost.kinds.table import payload_bytes
from fedcore.plan.planner import FleetPlan, Improvement, plan_fleet, updates_of
from fedcore.spec.job import JobSpec
from fedcore.spec.rules.method import training_devices
from fedcore.topology import Cluster
from webapp.common import units
from webapp.devices.models import Dataset, Device, DeviceRole
from webapp.jobs.lifecycle.cluster_setup import expected_clusters
from webapp.jobs.models import Assignment
from webapp.jobs.planning.candidates import ASSUMED_LINK, candidate
from webapp.jobs.planning.data_distribution import Spread, spread_of

PHASE_LABELS = dict(zip(PHASES, ("download", "train", "evaluate", "upload", "wait"), strict=True))


@dataclass(frozen=True)
class DeviceEstimate:
    """The estimate of one device. ``why``: why it does not fit, "" if it does."""

    name: str
    why: str
    note: str = ""
    dataset: str = ""
    examples: int = 0
    plan: DevicePlan | None = None
    domain: str = ""

    @property
    def fits(self) -> bool:
        return not self.why

    @property
    def seconds(self) -> float | None:
        """Of one round, without waiting for others."""
        return self.plan.busy_s if self.plan else None

    @property
    def phases(self) -> list[tuple[str, float]]:
        """Label and seconds of each phase of a round that takes any time."""
        seconds = self.plan.seconds if self.plan else {}
        return [(PHASE_LABELS[name], value) for name in PHASES if (value := seconds.get(name))]

    @property
    def granularity(self) -> float | None:
        """Seconds of computing per second of transfers; None where these take no time."""
        value = self.plan.granularity if self.plan else None
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Estimate:
    """A figure is None where the model's sizes or a measured device are missing.

    ``payload``: bytes of the trained parameters in fp32; ``device_bytes``: what a device transfers
    in a round, both ways; ``per_round``: updates that make a model.
    """

    parts: tuple[DeviceEstimate, ...]
    per_round: int
    payload: int | None
    device_bytes: int | None
    parameters: int | None
    trainable: int | None
    rounds: int
    assumed: tuple[str, ...]
    plan: FleetPlan | None = None
    clusters: tuple[Cluster, ...] = ()

    @property
    def fitting(self) -> list[DeviceEstimate]:
        return [part for part in self.parts if part.fits]

    @property
    def excluded(self) -> list[DeviceEstimate]:
        return [part for part in self.parts if not part.fits]

    @property
    def spread(self) -> Spread | None:
        """Distribution of the examples over the fitting devices."""
        return spread_of(self.fitting)

    @property
    def round_s(self) -> float | None:
        return self.plan.round_s if self.plan else None

    @property
    def total_s(self) -> float | None:
        return self.plan.total_s if self.plan else None

    @property
    def total_j(self) -> float | None:
        return self.plan.total_j if self.plan else None

    @property
    def energy_complete(self) -> bool:
        """Whether the joules include transfers and waiting, not only computing."""
        return all(row.energy.complete for row in self.plan.fitting) if self.plan else False

    @property
    def without_watts(self) -> list[str]:
        """Devices without power figures."""
        rows = self.plan.fitting if self.plan else ()
        return [row.name for row in rows if row.energy.total_j is None]

    @property
    def total_bytes(self) -> int | None:
        each = self.device_bytes
        return None if each is None else each * self.per_round * self.rounds

    @property
    def slowest(self) -> DeviceEstimate | None:
        """The device that limits the round."""
        name = self.plan.slowest if self.plan else ""
        return next((part for part in self.parts if name and part.name == name), None)

    @property
    def best(self) -> Improvement | None:
        return self.plan.best if self.plan else None


def estimate(spec: JobSpec, devices: Sequence[Device], last: Mapping[int, Assignment]) -> Estimate:
    """``devices``: with their datasets prefetched; ``last``: their newest delivered trainings."""
    sizes = architecture_of(spec.model.name)
    selected = selected_devices(spec, devices)
    candidates = eligible(spec, devices, last) if sizes else []
    plan = plan_fleet(spec, sizes, candidates) if sizes else None
    plans = {row.name: row for row in plan.devices} if plan else {}
    parts = [_device_estimate(spec, device, plans.get(device.name)) for device in selected]
    fitting = {part.name for part in parts if part.fits}
    clusters = tuple(expected_clusters(spec, devices, sorted(fitting)))
    heads = {cluster.head for cluster in clusters}
    payload = payload_bytes(sizes, spec.adapter) if sizes else None
    trainable = None if payload is None else payload // FP32_BYTES
    untrained = {device.name for device in selected if device.pk not in last}
    known = [device for device in candidates if device.name in fitting]
    faults = [f"{device.name}: {text}" for device in candidates for text in device.hardware.faults]
    # Of the device that transfers most; by the job's codecs where none fits.
    transfers = [row.bytes_down + row.bytes_up for row in plan.fitting] if plan else []
    if not transfers and trainable is not None:
        chains = (spec.wire.chain or PLAIN, spec.wire.step_chain or PLAIN)
        transfers = [sum(chain.payload(trainable)[1] for chain in chains)]
    return Estimate(
        parts=tuple(part for part in parts if part.name in fitting or part.name not in heads),
        per_round=updates_of(spec, len(fitting)),
        payload=payload,
        device_bytes=max(transfers, default=None),
        parameters=sizes.parameters() if sizes else None,
        trainable=trainable,
        rounds=spec.rounds,
        assumed=(*_assumptions(spec, plan, known, untrained), *faults[:5]),
        plan=plan,
        clusters=clusters,
    )


def selected_devices(spec: JobSpec, devices: Sequence[Device]) -> list[Device]:
    """The devices that the job names; all where it names none."""
    names = set(training_devices(spec))
    return [device for device in devices if not names or device.name in names]


def eligible(
    spec: JobSpec, devices: Sequence[Device], last: Mapping[int, Assignment]
) -> list[Candidate]:
    """The selected devices with data for the job, as planner candidates."""
    pairs = [(device, dataset_of(spec, device)) for device in selected_devices(spec, devices)]
    return [
        candidate(spec, device, dataset, last.get(device.pk))
        for device, dataset in pairs
        if dataset and not _why_not(spec, device, dataset)
    ]


def dataset_of(spec: JobSpec, device: Device) -> Dataset | None:
    """The dataset that the coordinator would choose: the first large enough, else the first."""
    name, least = spec.data.dataset, spec.data.min_examples
    datasets = [item for item in device.datasets.all() if not name or item.name == name]
    first = datasets[0] if datasets else None
    return next((item for item in datasets if item.examples >= least), first)


def _why_not(spec: JobSpec, device: Device, dataset: Dataset | None) -> str:
    if device.role == DeviceRole.AGGREGATOR:
        return "only aggregates, in jobs with an aggregation tree"
    if dataset is None:
        return f"has no dataset {spec.data.dataset!r}" if spec.data.dataset else "has no data"
    if dataset.examples < spec.data.min_examples:
        return f"{dataset.name} has {dataset.examples} of {spec.data.min_examples} examples"
    return ""


def _device_estimate(spec: JobSpec, device: Device, plan: DevicePlan | None) -> DeviceEstimate:
    dataset = dataset_of(spec, device)
    why = _why_not(spec, device, dataset)
    if why or dataset is None:
        return DeviceEstimate(device.name, why)
    reason = device.ability
    absence = "" if device.is_online else device.presence
    return DeviceEstimate(
        name=device.name,
        why=plan.why if plan else "",
        # Why the device would get no work now.
        note=reason.text if reason is not None and reason.blocks else absence,
        dataset=dataset.name,
        examples=dataset.examples,
        plan=plan,
        domain=dataset.domain,
    )


def _assumptions(
    spec: JobSpec, plan: FleetPlan | None, fitting: Sequence[Candidate], untrained: set[str]
) -> tuple[str, ...]:
    """``fitting``: the candidates that fit; ``untrained``: devices without a past training."""
    if plan is None:
        return (f"the sizes of {spec.model.name} are unknown, so bytes and time are unknown",)
    notes = []
    if any(row.allocation for row in plan.fitting):
        notes.append("FedPipe plans before its probe, with equal scores for all matrices")
    if any(device.link is ASSUMED_LINK for device in fitting):
        rate = units.si(ASSUMED_LINK.up_bps, "B/s")
        notes.append(f"a link of {rate} for devices that have not trained yet")
    if any(part.name in untrained for part in plan.fitting):
        notes.append(
            "step times from measured peak and bandwidth for devices that have not trained yet"
        )
    if unmeasured := [row.name for row in plan.fitting if row.step is None]:
        notes.append(f"no measured peak: {', '.join(unmeasured[:5])}")
    sheets = [
        device.name
        for device in fitting
        if device.hardware.peak_flops and "peak_flops" not in device.hardware.measured
    ]
    if sheets:
        notes.append(f"peaks from the data sheet: {', '.join(sheets[:5])}")
    return tuple(notes)
