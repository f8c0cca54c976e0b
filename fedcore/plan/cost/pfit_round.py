"""A mean step of a round of PFIT, and its memory: what ``fedcore.methods`` does, counted.

The first ``method.supervised_steps`` learn from the references. Of the others every
``method.passes``-th draws samples: it encodes each prompt, decodes token by token until the last of
its samples has ended, and asks how probable they are, of the anchor too; each of them then makes
one pass with gradients over all samples. Where nothing in the encoder trains, each prompt is
encoded once for all of it. These passes are those of transformers, padded.

Our choices: samples are as long as the references, the longest of those drawn together as long as
the longest reference; the model of a classifier that rewards is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.plan.cost.coefficients import (
    CALLS_PER_LAYER,
    KEPT_PASSES,
    KERNEL_COEFFICIENTS,
    LOAD_S_PER_TOKEN,
    LOSS_PASSES,
    OPTIMIZER_PASSES,
    REWARD_S,
)
from fedcore.plan.cost.memory import Memory, layer_numbers, memory
from fedcore.plan.cost.ppo_flops import PpoFlops, encoder_cost
from fedcore.plan.cost.step_time import Step, Terms, product_rate
from fedcore.plan.cost.workload import DECODER_LAYER, BatchShape, Workload

if TYPE_CHECKING:
    from fedcore.plan.cost.candidate import Candidate
    from fedcore.spec.job import JobSpec

READINGS = 2  # greedy summaries of the validation part: before a round's steps, and after them


def sample_memory(
    spec: JobSpec,
    method: Workload,
    work: BatchShape,
    limit: float | None,
    accelerator: bool = False,
) -> Memory:
    """Memory with as many samples at a time as fit, halving; those of one prompt at least.

    ``work``: how many the job allows, and their lengths.
    """
    options = spec.method
    prompts = max(1, work.examples // options.samples)
    while True:
        rows = work.of(prompts * options.samples)
        found = _with_anchor(spec, method, replace(rows, encoded=prompts), accelerator)
        if options.supervised_steps:
            found = max(found, memory(method, rows, accelerator), key=lambda item: item.peak)
        if spec.train.micro_batch or not limit or prompts == 1 or found.peak <= limit:
            return found
        prompts = -(-prompts // 2)


def _with_anchor(spec: JobSpec, method: Workload, rows: BatchShape, accelerator: bool) -> Memory:
    """Of a pass with gradients; an anchor is a copy of the weights that were received."""
    found = memory(_plain(method), rows, accelerator)
    if not spec.method.anchor:
        return found
    weights = found.parts["weights"] + FP32_BYTES * method.trained
    return replace(found, parts={**found.parts, "weights": weights})


def _plain(method: Workload) -> Workload:
    """The same with the kernels of PPO's passes."""
    return replace(method, kernels="plain", tuning=KERNEL_COEFFICIENTS["plain"])


@dataclass(frozen=True)
class PpoSchedule:
    """A round: ``steps``, the first ``taught`` of them supervised; draws of ``prompts`` each.

    A draw is worked off in ``parts`` pieces, whose samples are in memory together.
    """

    steps: int
    taught: int
    draws: int
    prompts: int
    parts: int
    samples: int
    anchored: bool

    @classmethod
    def of(cls, spec: JobSpec, steps: int, examples: int) -> PpoSchedule:
        """``examples``: so many samples at a time."""
        options, train = spec.method, spec.train
        taught = min(options.supervised_steps, steps - 1)
        at_once = max(1, examples // options.samples)
        return cls(
            steps=steps,
            taught=taught,
            draws=math.ceil((steps - taught) / options.passes),
            prompts=train.batch_size * train.accumulation,
            parts=math.ceil(train.batch_size / at_once) * train.accumulation,
            samples=options.samples,
            anchored=options.anchor > 0,
        )

    @property
    def reinforced(self) -> int:
        return self.steps - self.taught


def mean_step(
    course: PpoSchedule, method: Workload, device: Candidate, padded: BatchShape, taught: Step
) -> Step:
    """All steps of a round over their number; ``taught`` is a supervised one of it.

    ``padded``: the lengths that prompts are padded to. The device is a measured one.
    """
    passes = _Passes.of(course, method, device, padded.source)
    phases, bytes_moved = passes.seconds_and_bytes()
    phases["load_s"] = course.draws * course.prompts * LOAD_S_PER_TOKEN * device.source
    phases["loss_s"] += course.draws * course.prompts * course.samples * REWARD_S
    share = course.taught / course.steps

    def mean(of_taught: float, of_others: float) -> float:
        return share * of_taught + of_others / course.steps

    return Step(
        {name: mean(seconds, phases[name]) for name, seconds in taught.phases.items()},
        mean(taught.flops, _needed(course, method, device)),
        mean(taught.moved, bytes_moved),
        taught.peak_flops,
    )


def _needed(course: PpoSchedule, method: Workload, device: Candidate) -> float:
    """FLOPs of all steps but the supervised ones, padding left out: as training counts them."""
    effort = PpoFlops.of(method.sizes, method.cost.training, method.encoder_is_fixed)
    prompts = [(round(device.source), round(device.target))]
    samples = prompts * course.samples
    drawing = effort.drawing(prompts, samples, course.anchored)
    learning = effort.learning(prompts, samples)
    return course.prompts * float(course.draws * drawing + course.reinforced * learning)


@dataclass(frozen=True)
class _Passes:
    """Passes over the prompts of one draw, or over all samples of them.

    ``length`` are the source and target tokens that each is padded to.
    """

    course: PpoSchedule
    method: Workload
    length: tuple[int, int]
    rate: float
    bandwidth: float

    @classmethod
    def of(cls, course: PpoSchedule, method: Workload, device: Candidate, source: float) -> _Passes:
        rate, bandwidth = product_rate(device.hardware, method.precision), device.hardware
        assert rate is not None and bandwidth.bandwidth_bps is not None, "a measured device"
        length = (round(source), round(device.longest[1]))
        return cls(course, _plain(method), length, rate, bandwidth.bandwidth_bps)

    @property
    def _prompts(self) -> BatchShape:
        return BatchShape(self.course.prompts, *self.length)

    @property
    def _samples(self) -> BatchShape:
        return self._prompts.of(self.course.prompts * self.course.samples)

    def seconds_and_bytes(self) -> tuple[dict[str, float], float]:
        """Seconds by phase and bytes of memory traffic of all steps but the supervised ones."""
        steps, tuning = self.course.reinforced, self.method.tuning
        found = {name: part * steps for name, part in self._learning().items()}
        found["forward_s"] += self._drawing() * self.course.draws
        seconds = {name: part.seconds(tuning) for name, part in found.items()}
        return seconds, self.bandwidth * sum(part.memory_s for part in found.values())

    def _drawing(self) -> Terms:
        """Encoding, decoding token by token, and the probabilities of what was drawn."""
        asked = 2 if self.course.anchored else 1
        encoded = 1 if self.method.encoder_is_fixed else asked
        return (
            self._encoding * encoded + self._tokens + (self._decoding + self._logits * 0.5) * asked
        )

    def _learning(self) -> dict[str, Terms]:
        """One pass with gradients over all samples, and the optimizer's step."""
        method, forward = self.method, self._decoding
        again = self._decoding * (2 * method.keeping_decoder / method.sizes.decoder_layers)
        if not method.encoder_is_fixed:
            forward += self._encoding
            again += self._encoding * (2 * method.keeping / method.sizes.encoder_layers)
        effort = PpoFlops.of(method.sizes, method.cost.training, method.encoder_is_fixed)
        whole = effort.learning([self.length], [self.length] * self.course.samples)
        backward = self.course.prompts * whole / self.rate - forward.product_s
        weights = OPTIMIZER_PASSES * FP32_BYTES * method.trained
        return {
            "forward_s": forward,
            "loss_s": self._logits,
            "backward_s": replace(again, product_s=backward),
            "optimizer_s": Terms(memory_s=weights / self.bandwidth),
        }

    @property
    def _encoding(self) -> Terms:
        """The encoder's forward pass over the prompts."""
        sizes, work, parts = self.method.sizes, self._prompts, self.course.parts
        numbers, _ = layer_numbers(self.method, work)
        scores = work.examples * sizes.heads * work.source**2
        calls = parts * CALLS_PER_LAYER * sizes.encoder_layers
        flops = work.examples * encoder_cost(sizes).of([self.length])
        moved = sizes.encoder_layers * self._moved(numbers, scores)
        return self._terms(flops, moved + parts * self.method.encoder_bytes, calls)

    @property
    def _decoding(self) -> Terms:
        """The decoder's forward pass over whole samples."""
        sizes, work, parts = self.method.sizes, self._samples, self.course.parts
        _, numbers = layer_numbers(self.method, work)
        scores = work.examples * sizes.heads * work.target * (work.target + work.source)
        calls = parts * CALLS_PER_LAYER * DECODER_LAYER * sizes.decoder_layers
        moved = sizes.decoder_layers * self._moved(numbers, scores)
        return self._terms(self._decoder_flops, moved + parts * self.method.decoder_bytes, calls)

    @property
    def _tokens(self) -> Terms:
        """Decoding token by token: each reads the decoder's weights, and what stands before it."""
        sizes, work = self.method.sizes, self._samples
        once = self._decoding
        weights = self.course.parts * self.method.decoder_bytes
        places = work.target * (work.source + work.target / 2)
        kept = 2 * sizes.inner * sizes.decoder_layers * self.method.item * work.examples * places
        more = (work.target - 1) * weights + kept
        again = Terms(memory_s=more / self.bandwidth, calls=(work.target - 1) * once.calls)
        return once + again + self._logits * 0.5

    @property
    def _logits(self) -> Terms:
        """Traffic of the logits in both directions."""
        work = self._samples
        logits = work.examples * work.target * self.method.sizes.vocab
        return Terms(memory_s=LOSS_PASSES * FP32_BYTES * logits / self.bandwidth)

    @property
    def _decoder_flops(self) -> int:
        sizes, cost = self.method.sizes, self.method.cost.forward
        return self._samples.examples * (
            cost.of([self.length]) - encoder_cost(sizes).of([self.length])
        )

    def _moved(self, numbers: float, scores: float) -> float:
        """Bytes of one layer's numbers between its operators."""
        return KEPT_PASSES * self.method.item * (numbers + self.method.kept.scores * scores)

    def _terms(self, flops: float, moved: float, calls: float) -> Terms:
        return Terms(flops / self.rate, moved / self.bandwidth, calls)
