"""What a job would cost before it is launched: who fits, time, bytes, joules, and what is assumed.

The figures are the planner's (``fedcore.plan``). Nothing here decides who takes part; the
coordinator does, by the same rules of data and role.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcore.architecture.sizes import FP32_BYTES, Architecture, architecture_of
from fedcore.formats.codec_chain import PLAIN
from fedcore.plan.cost.candidate import Candidate
from fedcore.plan.cost.kinds.table import payload_bytes
from fedcore.plan.device_plan import PHASES, DevicePlan
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

PHASE_WORDS = dict(zip(PHASES, ("download", "train", "evaluate", "upload", "wait"), strict=True))


@dataclass(frozen=True)
class DeviceEstimate:
    """One device's part. ``why`` says why it does not fit, '' if it does."""

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
        """Of one round, waiting for others left out."""
        return self.plan.busy_s if self.plan else None

    @property
    def phases(self) -> list[tuple[str, float]]:
        """Seconds of each part of its round that takes any, with the word for it."""
        seconds = self.plan.seconds if self.plan else {}
        found = [(PHASE_WORDS[name], seconds.get(name)) for name in PHASES]
        return [(word, value) for word, value in found if value]

    @property
    def granularity(self) -> float | None:
        """Seconds of computing over seconds of transfers; None where these take no time."""
        found = self.plan.granularity if self.plan else None
        return found if found is not None and math.isfinite(found) else None


@dataclass(frozen=True)
class Estimate:
    """``None`` where it cannot be known without the model's sizes or a measured device.

    ``payload`` is what trains, in fp32; ``device_bytes`` what a device moves in a round, both ways.
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
    def left_out(self) -> list[DeviceEstimate]:
        return [part for part in self.parts if not part.fits]

    @property
    def spread(self) -> Spread | None:
        """How the examples lie on the devices that fit."""
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
    def energy_whole(self) -> bool:
        """Whether the joules are of computing, transfers and waiting, not of the first alone."""
        return all(row.energy.whole for row in self.plan.fitting) if self.plan else False

    @property
    def without_watts(self) -> list[str]:
        """Devices whose joules are not known."""
        rows = self.plan.fitting if self.plan else ()
        return [row.name for row in rows if row.energy.total_j is None]

    @property
    def total_bytes(self) -> int | None:
        each = self.device_bytes
        return None if each is None else each * self.per_round * self.rounds

    @property
    def slowest(self) -> DeviceEstimate | None:
        """The device that the others wait for."""
        name = self.plan.slowest if self.plan else ""
        return next((part for part in self.parts if name and part.name == name), None)

    @property
    def best(self) -> Improvement | None:
        return self.plan.best if self.plan else None


def estimate(spec: JobSpec, devices: Sequence[Device], last: Mapping[int, Assignment]) -> Estimate:
    """``devices`` with their datasets read; ``last``: their newest delivered training."""
    sizes = architecture_of(spec.model.name)
    asked = asked_for(spec, devices)
    held = {device.pk: dataset_of(spec, device) for device in asked}
    why = {device.pk: _why_not(spec, device, held[device.pk]) for device in asked}
    found = eligible(spec, devices, last) if sizes else []
    plan = plan_fleet(spec, sizes, found) if sizes else None
    plans = {row.name: row for row in plan.devices} if plan else {}
    parts = tuple(_part(d, why[d.pk], held[d.pk], plans.get(d.name)) for d in asked)
    fitting = {part.name for part in parts if part.fits}
    clusters = tuple(expected_clusters(spec, devices, sorted(fitting)))
    heads = {cluster.head for cluster in clusters}
    parts = tuple(part for part in parts if part.name in fitting or part.name not in heads)
    return Estimate(
        parts=parts,
        per_round=updates_of(spec, len(fitting)),
        payload=_payload(spec, sizes),
        device_bytes=_device_bytes(spec, sizes, plan),
        parameters=sizes.parameters() if sizes else None,
        trainable=_trainable(spec, sizes),
        rounds=spec.rounds,
        assumed=_assumed(spec, plan, found, fitting, {d.name for d in asked if d.pk not in last}),
        plan=plan,
        clusters=clusters,
    )


def asked_for(spec: JobSpec, devices: Sequence[Device]) -> list[Device]:
    """Those that the job names; all where it names none."""
    named = set(training_devices(spec))
    return [device for device in devices if not named or device.name in named]


def eligible(
    spec: JobSpec, devices: Sequence[Device], last: Mapping[int, Assignment]
) -> list[Candidate]:
    """The devices that are asked for and hold data for the job, as the planner sees them."""
    pairs = [(device, dataset_of(spec, device)) for device in asked_for(spec, devices)]
    return [
        candidate(spec, device, held, last.get(device.pk))
        for device, held in pairs
        if held and not _why_not(spec, device, held)
    ]


def dataset_of(spec: JobSpec, device: Device) -> Dataset | None:
    """The one the coordinator would choose: the first that is large enough, else the first."""
    name, least = spec.data.dataset, spec.data.min_examples
    held = [item for item in device.datasets.all() if not name or item.name == name]
    return next((item for item in held if item.examples >= least), held[0] if held else None)


def _why_not(spec: JobSpec, device: Device, held: Dataset | None) -> str:
    if device.role == DeviceRole.AGGREGATOR:
        return "only folds for others, in jobs that say so under “Who folds whose updates”"
    if held is None:
        return f"holds no dataset {spec.data.dataset!r}" if spec.data.dataset else "holds no data"
    if held.examples < spec.data.min_examples:
        return f"{held.name} has {held.examples} of {spec.data.min_examples} examples"
    return ""


def _part(
    device: Device, why: str, held: Dataset | None, plan: DevicePlan | None
) -> DeviceEstimate:
    if why or held is None:
        return DeviceEstimate(device.name, why)
    note = "" if device.is_online else device.presence
    why = plan.why if plan else ""
    return DeviceEstimate(device.name, why, note, held.name, held.examples, plan, held.domain)


def _payload(spec: JobSpec, sizes: Architecture | None) -> int | None:
    return None if sizes is None else payload_bytes(sizes, spec.adapter)


def _trainable(spec: JobSpec, sizes: Architecture | None) -> int | None:
    payload = _payload(spec, sizes)
    return None if payload is None else payload // FP32_BYTES


def _device_bytes(spec: JobSpec, sizes: Architecture | None, plan: FleetPlan | None) -> int | None:
    """Of the device that moves most; where none fits, as the job's codecs say."""
    moved = [row.bytes_down + row.bytes_up for row in plan.fitting] if plan else []
    if moved:
        return max(moved)
    numbers = _trainable(spec, sizes)
    ways = (spec.wire.chain or PLAIN, spec.wire.step_chain or PLAIN)
    return None if numbers is None else sum(chain.payload(numbers)[1] for chain in ways)


def _assumed(
    spec: JobSpec,
    plan: FleetPlan | None,
    candidates: Sequence[Candidate],
    fitting: set[str],
    fresh: set[str],
) -> tuple[str, ...]:
    if plan is None:
        return (f"the sizes of {spec.model.name} are not known here, so bytes and time are not",)
    notes = []
    if any(row.planned for row in plan.fitting):
        notes.append("FedPipe's plans as they are before its probe, every matrix counting alike")
    if any(device.link is ASSUMED_LINK and device.name in fitting for device in candidates):
        rate = units.si(ASSUMED_LINK.up_bps, "B/s")
        notes.append(f"a link of {rate} where a device has not trained yet")
    if fresh & fitting:
        notes.append("step times from the measured peak and bandwidth where it has not")
    unmeasured = [row.name for row in plan.fitting if row.step is None]
    if unmeasured:
        notes.append(f"no measured peak: {', '.join(unmeasured[:5])}")
    sheets = [d.name for d in candidates if d.name in fitting and _from_sheet(d)]
    if sheets:
        notes.append(f"peaks from the data sheet: {', '.join(sheets[:5])}")
    faults = [f"{device.name}: {text}" for device in candidates for text in device.hardware.faults]
    return (*notes, *faults[:5])


def _from_sheet(device: Candidate) -> bool:
    hardware = device.hardware
    return bool(hardware.peak_flops) and "peak_flops" not in hardware.measured
