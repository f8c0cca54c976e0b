"""Runs one assignment in the training process: download, train, upload, report.

Every step may be repeated after a crash, and none is done for an assignment that is over. While
the server is unavailable, calls are retried (``workers.agent.http.retry``).
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fedcore.errors import EdgewiseError
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.contract import Callbacks, CannotDo, Outcome, Received, Trainer
from workers.agent.assignment.model_step import rebuild_model
from workers.agent.http.byte_counts import Counted
from workers.agent.http.retry import keep_trying, pause
from workers.agent.http.server_api import ServerApi
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
        update = deps.updates / f"{work.assignment}.safetensors"
        try:
            outcome = self._compute(update)
            if outcome.update is not None:
                self._upload(update, *outcome.update)
        finally:
            update.unlink(missing_ok=True)
        byte_counts = traffic.values()
        timing = {} if work.task == "evaluate" else self.timing.metrics()
        energy = deps.recorder.energy.report()
        body = {
            "update": outcome.update[0] if outcome.update else None,
            "examples": outcome.examples,
            "bytes_up": byte_counts["net_up_bytes"],
            "bytes_down": byte_counts["net_down_bytes"],
            "metrics": {**outcome.metrics, **timing, **byte_counts, **energy},
        }
        self._retry(lambda: deps.server.report(work.assignment, body), "reporting")
        return outcome

    def _compute(self, update: Path) -> Outcome:
        """Download the inputs and have the trainer do the task."""
        work, deps = self.work, self.dependencies
        callbacks = Callbacks(deps.should_stop, deps.recorder.advance, deps.recorder.record)
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
        """The global model: from the cache, rebuilt from a step, or downloaded."""
        work, deps = self.work, self.dependencies
        sha256, size = work.global_sha256, work.global_size

        def download() -> Path:
            rebuilt = rebuild_model(deps.cache, work.step, sha256, size, self._fetch)
            return rebuilt or self._fetch(sha256, size)

        cached = deps.cache.get(sha256, size, deps.check)
        if cached is None:
            deps.recorder.enter("downloading")
            path, self.timing.download = self._timed(download)
        else:
            path = cached
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

    def _upload(self, path: Path, sha256: str, size: int) -> None:
        """Send the update; a repeated attempt resumes where the server's copy ends."""
        work, deps = self.work, self.dependencies
        if size > work.max_update_bytes:
            raise TooLarge(
                f"the update has {size} bytes; the server accepts at most {work.max_update_bytes}"
            )
        attempts = itertools.count()

        def send() -> None:
            resume = next(attempts) > 0
            deps.server.upload(work.assignment, path, sha256, deps.check, resume=resume)

        deps.recorder.enter("uploading")
        _, self.timing.upload = self._timed(lambda: self._retry(send, "uploading the update"))

    def _timed(self, call: Callable[[], T]) -> tuple[T, float]:
        """The call's result and its seconds, without waits for an absent server."""
        began, waited_s = time.monotonic(), self.timing.wait
        result = call()
        return result, time.monotonic() - began - (self.timing.wait - waited_s)

    def _retry(self, call: Callable[[], T], description: str) -> T:
        until = time.monotonic() + self.remaining_s
        return keep_trying(call, until, self.dependencies.check, description, self._pause)

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
