"""Runs one assignment in the training process: download, train, upload, report.

Models and updates of at most SMALL_BYTES come with the work and leave with the report.

Every step may be repeated after a crash, and none is done for an assignment that is over. While
the server is unavailable, calls are retried (``workers.agent.http.retry``).
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fedcore.errors import EdgewiseError
from fedcore.formats.line_bodies import SMALL_BYTES
from fedcore.formats.line_messages import body_of
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, CannotDo, Outcome, Received, Trainer
from workers.agent.assignment.model_step import rebuild_model
from workers.agent.http.byte_counts import Counted
from workers.agent.http.retry import LONGEST_ON_LINE_S, LONGEST_S, keep_trying, pause
from workers.agent.http.server_api import ServerApi
from workers.agent.line.line_api import LineApi
from workers.agent.telemetry.recorder import AssignmentRecorder

T = TypeVar("T")
WITHOUT_DEADLINE_S = 3600.0
DOWNLOAD_ATTEMPTS = 3

log = logging.getLogger(__name__)


class TooLarge(EdgewiseError):
    """An update beyond the size the server accepts."""


@dataclass
class Timing:
    """Seconds of an assignment's transfers; ``wait`` is time spent on an absent server."""

    download: float = 0.0
    upload: float = 0.0
    wait: float = 0.0

    def metrics(self) -> dict[str, float]:
        return {
            "download_s": round(self.download, 6),
            "upload_s": round(self.upload, 6),
            "wait_s": round(self.wait, 6),
        }


@dataclass(frozen=True)
class Dependencies:
    """What a runner works with. ``check`` raises Stopped once the assignment is over.

    ``updates`` is the folder for outgoing updates.
    """

    server: ServerApi
    line: LineApi
    cache: ArtefactCache
    trainer: Trainer
    recorder: AssignmentRecorder
    updates: Path
    check: Callable[[], None]
    should_stop: Callable[[], bool]


@dataclass
class AssignmentRunner:
    """Runs one assignment."""

    work: AssignedWork
    dependencies: Dependencies
    timing: Timing = field(default_factory=Timing)

    def perform(self) -> Outcome:
        """Do all steps. Raises what went wrong; the caller reports the failure."""
        work, deps = self.work, self.dependencies
        traffic = Counted(deps.server.traffic)
        deps.server.traffic.down += work.answer_bytes
        update = deps.updates / f"{work.assignment}.safetensors"
        try:
            outcome = self._compute(update)
            data = self._send(update, *outcome.update) if outcome.update else None
        finally:
            update.unlink(missing_ok=True)
        report = partial(
            deps.line.report, work.assignment, self._report(outcome, data, traffic), deps.check
        )
        self._retry(report, "reporting", LONGEST_ON_LINE_S)
        return outcome

    def _report(self, outcome: Outcome, data: bytes | None, traffic: Counted) -> dict[str, Any]:
        """The report's body; with an update in it, the report counts as sent bytes too."""
        timing = {} if self.work.task == "evaluate" else self.timing.metrics()
        metrics = {**outcome.metrics, **timing, **self.dependencies.recorder.energy.report()}
        body: dict[str, Any] = {
            "update": outcome.update[0] if outcome.update else None,
            "examples": outcome.examples,
            "metrics": metrics,
        }
        if data is not None:
            body["data"] = data
            self.dependencies.server.traffic.up += len(bytes(body_of(body)))
        byte_counts = traffic.values()
        metrics.update(byte_counts)
        body["bytes_up"], body["bytes_down"] = (
            byte_counts["net_up_bytes"],
            byte_counts["net_down_bytes"],
        )
        return body

    def _compute(self, update: Path) -> Outcome:
        """Download the inputs and have the trainer do the task."""
        work, deps = self.work, self.dependencies
        recorder = deps.recorder
        callbacks = Callbacks(
            deps.should_stop, recorder.advance, recorder.record, recorder.note_examples_at_once
        )
        request = work.fold_request
        if request is not None:
            # Updates fetched before a crash are reused; the fold's end drops them.
            deps.cache.keep_only({work.global_sha256, *request.names})
            deps.recorder.enter("downloading")
            updates, self.timing.download = self._timed(
                lambda: request.gather(self._cached_or_fetched)
            )
            deps.recorder.enter("folding")
            outcome = deps.trainer.fold(work, updates, update, callbacks)
            deps.cache.keep_only({work.global_sha256})
            return outcome
        weights = self._global_weights()
        # After the weights, because fetching those tidies the cache.
        state = self._cached_or_fetched(*work.state) if work.state else None
        if work.task == "evaluate":
            deps.recorder.enter("evaluating")
            return deps.trainer.evaluate(work, weights, callbacks)
        if work.task == "train":
            deps.recorder.enter("training")
            return deps.trainer.train(work, Received(weights, state), update, callbacks)
        raise CannotDo(f"this agent does not support the task {work.task!r}; update it")

    def _global_weights(self) -> Path:
        """The global model: from the cache or the answer, rebuilt from a step, or downloaded."""
        work, deps = self.work, self.dependencies
        sha256, size = work.global_sha256, work.global_size

        def download() -> Path:
            rebuilt = rebuild_model(deps.cache, work.step, sha256, size, self._fetch)
            return rebuilt or self._fetch(sha256, size)

        cached = deps.cache.get(sha256, size, deps.check)
        if cached is not None:
            path = cached
        elif work.global_data is not None:
            path = deps.cache.store(sha256, work.global_data)
        else:
            deps.recorder.enter("downloading")
            path, self.timing.download = self._timed(download)
        deps.cache.tidy(sha256)
        return path

    def _cached_or_fetched(self, sha256: str, size: int) -> Path:
        deps = self.dependencies
        return deps.cache.get(sha256, size, deps.check) or self._fetch(sha256, size)

    def _fetch(self, sha256: str, size: int) -> Path:
        deps = self.dependencies

        def fetch() -> Path:
            return deps.cache.fetch(deps.server, sha256, size, deps.check)

        for _ in range(DOWNLOAD_ATTEMPTS - 1):
            try:
                return self._retry(fetch, "downloading the weights")
            except BrokenDownload as error:
                log.warning("%s", error)
        return self._retry(fetch, "downloading the weights")

    def _send(self, path: Path, sha256: str, size: int) -> bytes | None:
        """Upload the update, or return its bytes if they are few enough for the report.

        A repeated attempt resumes where the server's copy ends.
        """
        work, deps = self.work, self.dependencies
        largest = work.max_update_bytes
        if size > largest:
            text = f"the update has {size} bytes; the server accepts at most {largest}"
            raise TooLarge(text)
        if size <= SMALL_BYTES:
            return path.read_bytes()
        attempts = itertools.count()

        def send() -> None:
            resume = next(attempts) > 0
            deps.server.upload(work.assignment, path, sha256, deps.check, resume=resume)

        deps.recorder.enter("uploading")
        _, self.timing.upload = self._timed(lambda: self._retry(send, "uploading the update"))
        return None

    def _timed(self, call: Callable[[], T]) -> tuple[T, float]:
        """The call's result and its seconds, without waits for an absent server."""
        began, waited_s = time.monotonic(), self.timing.wait
        result = call()
        return result, time.monotonic() - began - (self.timing.wait - waited_s)

    def _retry(self, call: Callable[[], T], description: str, longest_s: float = LONGEST_S) -> T:
        until, check = time.monotonic() + self.remaining_s, self.dependencies.check
        return keep_trying(call, until, check, description, self._pause, longest_s)

    def _pause(self, seconds: float, check: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            with self.dependencies.recorder.waiting():
                pause(seconds, check)
        finally:
            self.timing.wait += time.monotonic() - began

    @property
    def remaining_s(self) -> float:
        """Seconds for which a report still matters."""
        if self.work.deadline is None:
            return WITHOUT_DEADLINE_S
        return max(0.0, self.work.deadline - self.dependencies.server.clock.now())
