"""Metrics of local work: seconds by phase, tokens, needed FLOPs and loss, reported every second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from fedcore.compute.device import peak_memory_bytes
from fedcore.errors import Stopped

PHASES = ("load", "forward", "loss", "backward", "optimizer")
REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class Measurement:
    """The steps since the last report. ``tokens`` and ``flops`` leave padding out.

    ``phase_s`` is seconds by phase, ``loss`` the mean of those steps, ``elapsed_s`` the time since
    local training began, ``reward`` the mean of the round's samples so far, where it has any.
    """

    step: int
    steps_total: int
    epoch: float
    loss: float
    learning_rate: float
    tokens: int
    tokens_per_s: float
    flops: int
    flops_per_s: float
    phase_s: Mapping[str, float]
    peak_memory_bytes: int
    elapsed_s: float
    reward: float | None = None


@dataclass(frozen=True)
class EvaluationProgress:
    """Evaluated examples so far, of all."""

    done: int
    total: int
    elapsed_s: float


def _ignore(value: object) -> None:
    del value


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Hooks:
    """Callbacks of local work. ``should_stop`` is called at every step.

    ``report_every_s``: 0 reports every step. ``sized`` gets the most examples in one forward pass,
    before the first.
    """

    report: Callable[[Measurement], None] = _ignore
    sized: Callable[[int], None] = _ignore
    progress: Callable[[EvaluationProgress], None] = _ignore
    should_stop: Callable[[], bool] = _never
    report_every_s: float = REPORT_SECONDS

    def check_stop(self, what: str) -> None:
        """Raise Stopped if the caller asked to stop."""
        if self.should_stop():
            raise Stopped(f"{what} was asked to stop and did")


class PhaseClock:
    """Seconds per phase. ``mark`` ends a phase that began at the mark before.

    On an accelerator marks are events in its stream, read only in ``take``: measuring does not
    stall the work, and the time is that of the accelerator, not of the launch.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[str, torch.cuda.Event]] = []
        self._last = time.perf_counter()
        if device.type == "cuda":
            self._record("")

    def mark(self, phase: str) -> None:
        if self._device.type == "cuda":
            self._record(phase)
            return
        now = time.perf_counter()
        self._seconds[phase] += now - self._last
        self._last = now

    def _record(self, phase: str) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._events.append((phase, event))

    def take(self) -> dict[str, float]:
        """Seconds per phase since the last ``take``; waits for the accelerator."""
        if self._events:
            self._events[-1][1].synchronize()
            pairs = zip(self._events, self._events[1:], strict=False)
            for (_, start), (phase, end) in pairs:
                self._seconds[phase] += start.elapsed_time(end) / 1000
            self._events = self._events[-1:]
        seconds, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return seconds


@dataclass
class StepTotals:
    """Sums over a whole round."""

    tokens: int = 0
    flops: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    phase_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


@dataclass(frozen=True)
class LoopPosition:
    """The loop's progress; ``epoch`` counts passes over the device's examples, fractions too."""

    step: int
    steps_total: int
    epoch: float
    learning_rate: float


class Recorder:
    """Collects steps and reports them about once a second."""

    def __init__(self, device: torch.device, hooks: Hooks) -> None:
        self.clock = PhaseClock(device)
        self.totals = StepTotals()
        self._device, self._report, self._every_s = device, hooks.report, hooks.report_every_s
        self._began = self._last = time.perf_counter()
        self._tokens = self._flops = 0

    def count(self, tokens: int, flops: int) -> None:
        self._tokens += tokens
        self._flops += flops

    @property
    def due(self) -> bool:
        return time.perf_counter() - self._last >= self._every_s

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began

    def send(self, pace: LoopPosition, losses: list[float], reward: float | None = None) -> None:
        """Report the steps since the last report, given the loss of each."""
        phases = self.clock.take()
        now = time.perf_counter()
        seconds = max(now - self._last, 1e-9)
        self._report(
            Measurement(
                step=pace.step,
                steps_total=pace.steps_total,
                epoch=pace.epoch,
                loss=sum(losses) / len(losses),
                learning_rate=pace.learning_rate,
                tokens=self._tokens,
                tokens_per_s=self._tokens / seconds,
                flops=self._flops,
                flops_per_s=self._flops / seconds,
                phase_s=phases,
                peak_memory_bytes=peak_memory_bytes(self._device),
                elapsed_s=now - self._began,
                reward=reward,
            )
        )
        self.totals.tokens += self._tokens
        self.totals.flops += self._flops
        self.totals.steps += len(losses)
        self.totals.loss_sum += sum(losses)
        for phase, phase_s in phases.items():
            self.totals.phase_s[phase] += phase_s
        self._last, self._tokens, self._flops = now, 0, 0
