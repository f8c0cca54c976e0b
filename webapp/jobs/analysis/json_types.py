"""JSON of a job's live page, as the WebSocket and the REST API send it.

Seconds, bytes, joules and FLOP/s; shares from 0 to 1; ROUGE is F1 in percent; times are ISO 8601.
None is an unknown value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from webapp.jobs.artefacts.download import Downloads
from webapp.jobs.round_records import BufferedUpdate, ClusterFold, MeanScores


class AssignmentJson(TypedDict):
    slot: int
    attempt: int
    phase: str
    reason: str
    offered_at: str | None
    accepted_at: str | None
    ended_at: str | None


class RewardsJson(TypedDict, total=False):
    """Rewards of a training (device_rewards.REWARDED), where its method has any."""

    reward: float | None
    reward_before: float | None
    reward_after: float | None


class TrainingJson(AssignmentJson, RewardsJson):
    """``peak``: FLOP/s that the MFU refers to; ``at_socket``: bytes include all headers."""

    staleness: int | None
    download_s: float
    compute_s: float
    upload_s: float
    wait_s: float
    phase_s: Mapping[str, float] | None
    loss: float | None
    mfu: float | None
    peak: float
    precision: str
    tokens: float
    granularity: float | None
    energy_j: float | None
    energy_estimated: bool
    eta_e: float | None
    examples: int
    bytes_up: float | None
    bytes_down: float | None
    at_socket: bool


class FoldJson(AssignmentJson):
    bytes_up: float | None
    bytes_down: float | None


class EvaluationJson(FoldJson):
    """``personal_*``: of the device's personalised model, where its method has one."""

    loss: float | None
    rouge1: float | None
    rouge2: float | None
    rougeL: float | None
    examples: float | None
    personal_loss: NotRequired[float | None]
    personal_rouge1: NotRequired[float | None]
    personal_rouge2: NotRequired[float | None]
    personal_rougeL: NotRequired[float | None]


class RoundJson(TypedDict):
    """``granularity``: compute over transfers."""

    id: int
    number: int
    attempt: int
    phase: str
    reason: str
    started_at: str | None
    collected_at: str | None
    aggregated_at: str | None
    ended_at: str | None
    deadline_at: str | None
    duration_s: float | None
    evaluation: MeanScores
    compute_s: float
    communication_s: float
    granularity: float | None
    aggregation_error: float | None
    updates: list[BufferedUpdate]
    clusters: list[ClusterFold]
    train: list[TrainingJson]
    fold: list[FoldJson]
    evaluate: list[EvaluationJson]


class ActivityJson(TypedDict):
    task: str
    phase: str
    step: float | None
    steps: float | None
    reason: str


class PeakJson(TypedDict):
    """Denominator of a device's MFU."""

    peak_flops: float | None
    precision: str


class TrafficJson(TypedDict):
    """Bytes of all rounds; ``granularity`` of the last training that has one, and its round."""

    down: float | None
    up: float | None
    granularity: float | None
    round: int | None


class ScoreJson(TypedDict):
    """ROUGE-L of a device's last evaluation: of the shared and of its personalised model."""

    rougeL: float | None
    personal_rougeL: float | None
    round: int | None


class RewardJson(TypedDict):
    """A device's reward function and its last rewards.

    ``of``: the weighted sum in words, ``least`` and ``most`` its bounds; ``before`` and ``after``
    the training of ``round``; ``drawn``: mean of the last training's samples, evaluated or not.
    """

    of: str
    least: float
    most: float
    drawn: float | None
    before: float | None
    after: float | None
    round: int | None


class AbilityJson(TypedDict):
    """Why a device does no work, or what to mend on it. ``blocks``: it does no work."""

    reason: str
    blocks: bool


class DeviceJson(ActivityJson, PeakJson):
    """``parent``: the device that aggregates its updates, "" for the server."""

    id: int
    slot: int
    name: str
    presence: str
    ability: AbilityJson
    last_seen_at: str | None
    dataset: str
    parent: str
    examples: int
    share: float
    traffic: TrafficJson
    score: ScoreJson
    reward: RewardJson | None


class FairnessJson(TypedDict):
    worst_device: str
    worst: float
    mean: float
    spread: float
    jain: float


class EvennessJson(TypedDict):
    """Fairness of the shared and the personalised models.

    ``gain``: personalised minus shared ROUGE-L, as mean, least and most.
    """

    shared: FairnessJson | None
    own: FairnessJson | None
    gain: dict[str, float] | None


class CurrentRoundJson(TypedDict):
    number: int
    of: int
    phase: str
    attempt: int
    deadline_at: str | None


class BufferJson(TypedDict):
    """Updates that the next model of an asynchronous job needs, and how many have arrived."""

    size: int
    held: int


class EnergyJson(TypedDict):
    """``joules_of``: trainings with known energy, of which ``joules_estimated`` are estimates."""

    joules: float | None
    joules_estimated: int
    joules_of: int
    trainings: int
    eta_e: float | None


class TilesJson(EnergyJson):
    rougeL: float | None
    rougeL_base: float | None
    loss: float | None
    loss_base: float | None
    mfu: float | None
    bytes_up: int
    bytes_down: int
    tokens: float


class JobSnapshot(TypedDict):
    id: str
    name: str
    phase: str
    reason: str
    headline: str
    site: list[str]
    round: CurrentRoundJson
    buffer: BufferJson | None
    progress: float
    eta_s: float | None
    created_at: str | None
    started_at: str | None
    ended_at: str | None
    tiles: TilesJson
    devices: list[DeviceJson]
    evenness: EvennessJson | None
    rounds: list[RoundJson]
    moves: list[str]
    artefacts: Downloads


class DeviceSummary(TypedDict):
    id: int
    name: str
    presence: str
    ability: AbilityJson
    last_seen_at: str | None
    phase: str
    step: float | None
    steps: float | None


class JobSummary(TypedDict):
    id: str
    name: str
    phase: str
    headline: str
    round: int
    of: int
    progress: float
    devices: int
    losses: list[float]
    rougeL: float | None
    rougeL_base: float | None


class ClusterJson(TypedDict):
    """``level`` 1 sends to the server; bytes of all rounds."""

    name: str
    children: list[str]
    level: int
    folds: int
    bytes_in: int
    bytes_up: int


class ClustersJson(TypedDict):
    """``read``: bytes of updates that the server aggregated; ``sent``: that devices trained."""

    rounds: int
    heads: list[ClusterJson]
    read: int
    sent: int
