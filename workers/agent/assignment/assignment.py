"""One assignment from offer to answer, as it runs in the training process.

Accept, download, train or evaluate, upload, report: each step may be repeated, none is done for an
assignment that is over. How the server is reached again is decided by ``backoff``.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

from fedcore.errors import EdgewiseError
from fedcore.formats.wire_offer import StepOffer, WireOffer, sha256_of
from fedcore.spec.job import JobSpec
from fedcore.spec.overrides import for_evaluation, tailored
from fedcore.spec.parse import load_spec
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload
from workers.agent.assignment.fold_request import FoldRequest
from workers.agent.assignment.model_step import rebuilt
from workers.agent.http.byte_counts import Counted
from workers.agent.http.retry import keep_trying, pause
from workers.agent.http.server_api import ServerApi
from workers.agent.http.server_clock import seconds_of
from workers.agent.telemetry.recorder import AssignmentRecorder

T = TypeVar("T")
WITHOUT_DEADLINE_S = 3600.0
DOWNLOADS = 3

log = logging.getLogger(__name__)


class CannotDo(EdgewiseError):
    """This device can never do the assignment, such as for a dataset it does not hold."""


class TooLarge(EdgewiseError):
    """An update beyond the size the server takes."""


@dataclass(frozen=True)
class AssignedWork:
    """An accepted assignment (docs/reference/protocol.md). ``deadline`` is a Unix time in seconds.

    ``spec`` is the job as this device was given it, ``state`` the server's state where the strategy
    lets devices see it (SHA-256 and bytes), ``cluster`` the updates it is to fold. ``draw`` counts
    former pieces of training on the same weights; each draws its own order.
    """

    assignment: str
    job: str
    job_name: str
    round: int
    task: str
    slot: int
    dataset: str
    spec: JobSpec
    global_sha256: str
    global_size: int
    deadline: float | None
    max_update_bytes: int
    draw: int = 0
    wire: WireOffer = field(default_factory=WireOffer)
    step: StepOffer | None = None
    state: tuple[str, int] | None = None
    cluster: FoldRequest | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> AssignedWork:
        """Raises SpecError where this agent does not understand the job's specification.

        Job, assignment and hashes become names of files, so they must be what they claim.
        """
        return cls(
            assignment=str(UUID(str(values["assignment"]))),
            job=str(UUID(str(values["job"]))),
            job_name=str(values["job_name"]),
            round=int(values["round"]),
            task=str(values["task"]),
            slot=int(values["slot"]),
            dataset=str(values["dataset"]),
            spec=_given(values),
            global_sha256=sha256_of(values["global"]["sha256"]),
            global_size=int(values["global"]["size_bytes"]),
            deadline=seconds_of(values["deadline_at"]) if values.get("deadline_at") else None,
            max_update_bytes=int(values["max_update_bytes"]),
            draw=int(values.get("draw", 0)),
            wire=WireOffer.read(values.get("wire") or {}),
            step=StepOffer.read(values["global"].get("step")),
            state=_artefact(values.get("state")),
            cluster=FoldRequest.read(values.get("fold")),
        )

    @property
    def update_meta(self) -> dict[str, str]:
        """What an update's frame says of itself; the same at every attempt of a round."""
        return {
            "kind": "update",
            "job": self.job,
            "round": str(self.round),
            "base": self.global_sha256,
            "slot": str(self.slot),
        }


def _given(values: Mapping[str, Any]) -> JobSpec:
    """The job with what differs on this device, as far as its task is about that."""
    changes = values.get("tailoring") or {}
    own = for_evaluation(changes) if values["task"] == "evaluate" else changes
    return tailored(load_spec(values["spec"]), own)


def _artefact(values: Mapping[str, Any] | None) -> tuple[str, int] | None:
    return (sha256_of(values["sha256"]), int(values["size_bytes"])) if values else None


@dataclass(frozen=True)
class Callbacks:
    """How a trainer talks while it works: numbers go out, the wish to stop comes in."""

    should_stop: Callable[[], bool]
    advance: Callable[[int, int], None]
    record: Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class Outcome:
    """A trainer's result. ``update`` is (SHA-256, bytes) of the frame it wrote, if any."""

    examples: int
    metrics: dict[str, Any]
    update: tuple[str, int] | None = None


@dataclass(frozen=True)
class Received:
    """The files an assignment works on: the global weights, and the server's state if served."""

    weights: Path
    state: Path | None = None


class Trainer(Protocol):
    """The learning itself, behind which torch hides."""

    def train(
        self, work: AssignedWork, received: Received, update: Path, watch: Callbacks
    ) -> Outcome:
        """Train from what was received; write the update's frame to ``update``."""

    def evaluate(self, work: AssignedWork, weights: Path, watch: Callbacks) -> Outcome:
        """Evaluate ``weights`` on this device's validation part."""

    def fold(
        self, work: AssignedWork, updates: Sequence[Path], update: Path, watch: Callbacks
    ) -> Outcome:
        """Fold the updates of the work's cluster, in its order, into one; write its frame."""


@dataclass
class Timing:
    """Seconds of one assignment's parts; ``wait`` is time spent on an absent server."""

    download: float = 0.0
    upload: float = 0.0
    wait: float = 0.0


@dataclass(frozen=True)
class Dependencies:
    """What an assignment is done with. ``check`` raises Stopped once the assignment is over."""

    server: ServerApi
    cache: ArtefactCache
    trainer: Trainer
    recorder: AssignmentRecorder
    updates: Path
    check: Callable[[], None]
    should_stop: Callable[[], bool]


@dataclass
class AssignmentRunner:
    """One assignment being done."""

    work: AssignedWork
    tools: Dependencies
    timing: Timing = field(default_factory=Timing)

    def perform(self) -> Outcome:
        """Do all of it; raises what went wrong, after which the assignment is to be answered."""
        counted = Counted(self.tools.server.traffic)
        update = self.tools.updates / f"{self.work.assignment}.safetensors"
        try:
            outcome = self._do(update)
            if outcome.update is not None:
                self._upload(update, outcome.update)
        finally:
            update.unlink(missing_ok=True)
        passed = counted.values()
        body = {
            "update": outcome.update[0] if outcome.update else None,
            "examples": outcome.examples,
            "bytes_up": passed["net_up_bytes"],
            "bytes_down": passed["net_down_bytes"],
            "metrics": {**self._metrics(outcome), **passed, **self.tools.recorder.energy.report()},
        }
        server, assignment = self.tools.server, self.work.assignment
        self._insist(lambda: server.report(assignment, body), "reporting")
        return outcome

    def _weights(self) -> Path:
        work, tools = self.work, self.tools
        path = tools.cache.held(work.global_sha256, work.global_size, tools.check)
        if path is None:
            tools.recorder.enter("downloading")
            began, waited = time.monotonic(), self.timing.wait
            path = self._download()
            self.timing.download = time.monotonic() - began - (self.timing.wait - waited)
        tools.cache.tidy(work.global_sha256)
        return path

    def _state(self) -> Path | None:
        """The server's state; after the weights, as fetching those clears the cache."""
        if self.work.state is None:
            return None
        return self._held(*self.work.state)

    def _download(self) -> Path:
        work, cache = self.work, self.tools.cache
        sha256, size = work.global_sha256, work.global_size
        path = rebuilt(cache, work.step, sha256, size, self._fetch)
        return self._fetch(sha256, size) if path is None else path

    def _fetch(self, sha256: str, size: int) -> Path:
        tools = self.tools

        def fetch() -> Path:
            return tools.cache.fetch(tools.server, sha256, size, tools.check)

        for _ in range(DOWNLOADS - 1):
            try:
                return self._insist(fetch, "downloading the weights")
            except BrokenDownload as error:
                log.warning("%s", error)
        return self._insist(fetch, "downloading the weights")

    def _do(self, update: Path) -> Outcome:
        if self.work.cluster is not None:
            return self._fold(self.work.cluster, update)
        return self._learn(Received(self._weights(), self._state()), update)

    def _fold(self, cluster: FoldRequest, update: Path) -> Outcome:
        """Updates that were fetched before a crash are here still; afterwards nobody needs them."""
        work, tools = self.work, self.tools
        tools.cache.keep_only({work.global_sha256, *cluster.names})
        tools.recorder.enter("downloading")
        began, waited = time.monotonic(), self.timing.wait
        updates = cluster.gather(self._held)
        self.timing.download = time.monotonic() - began - (self.timing.wait - waited)
        tools.recorder.enter("folding")
        outcome = tools.trainer.fold(work, updates, update, self._watch())
        tools.cache.keep_only({work.global_sha256})
        return outcome

    def _held(self, sha256: str, size: int) -> Path:
        return self.tools.cache.held(sha256, size, self.tools.check) or self._fetch(sha256, size)

    def _learn(self, received: Received, update: Path) -> Outcome:
        work, tools, watch = self.work, self.tools, self._watch()
        if work.task == "evaluate":
            tools.recorder.enter("evaluating")
            return tools.trainer.evaluate(work, received.weights, watch)
        if work.task == "train":
            tools.recorder.enter("training")
            return tools.trainer.train(work, received, update, watch)
        raise CannotDo(f"this agent knows no task {work.task!r}; update it")

    def _watch(self) -> Callbacks:
        tools = self.tools
        return Callbacks(tools.should_stop, tools.recorder.advance, tools.recorder.record)

    def _upload(self, path: Path, update: tuple[str, int]) -> None:
        sha256, size = update
        if size > self.work.max_update_bytes:
            raise TooLarge(
                f"the update has {size} bytes where the server takes {self.work.max_update_bytes}"
            )
        server, assignment, check = self.tools.server, self.work.assignment, self.tools.check
        attempts = itertools.count()

        def send() -> None:
            server.upload(assignment, path, sha256, check, resume=next(attempts) > 0)

        self.tools.recorder.enter("uploading")
        began, waited = time.monotonic(), self.timing.wait
        self._insist(send, "uploading the update")
        self.timing.upload = time.monotonic() - began - (self.timing.wait - waited)

    def _insist(self, call: Callable[[], T], what: str) -> T:
        until = time.monotonic() + self.left_s
        return keep_trying(call, until, self.tools.check, what, self._pause)

    def _pause(self, seconds: float, check: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            with self.tools.recorder.waiting():
                pause(seconds, check)
        finally:
            self.timing.wait += time.monotonic() - began

    @property
    def left_s(self) -> float:
        """Seconds for which an answer still matters."""
        if self.work.deadline is None:
            return WITHOUT_DEADLINE_S
        return max(0.0, self.work.deadline - self.tools.server.clock.now())

    def _metrics(self, outcome: Outcome) -> dict[str, Any]:
        if self.work.task == "evaluate":
            return outcome.metrics
        timing = self.timing
        parts = {
            "download_s": timing.download,
            "upload_s": timing.upload,
            "wait_s": timing.wait,
        }
        return {**outcome.metrics, **{name: round(value, 6) for name, value in parts.items()}}
