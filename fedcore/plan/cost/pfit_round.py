"""The mean step of a PFIT round and its memory, as ``fedcore.methods.pfit`` trains.

The first ``method.supervised_steps`` steps learn from the references. After that, every
``method.passes``-th step draws samples: it encodes each prompt, decodes token by token until the
longest of its samples ends, and computes the samples' log-probabilities, also by the anchor. Each
step makes one pass with gradients over all samples. If nothing in the encoder trains, a prompt is
encoded once for all of them. These passes use transformers' padded kernels.

Our choices: samples are as long as the references, and the longest sample of a draw as long as the
longest reference. A classifier that computes rewards is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedcore.architecture.sizes import FP32_BYTES
from fedcore.plan.cost.coefficients import (
    CALLS_PER_LAYER,
    KERNEL_COEFFICIENTS,
    LOAD_S_PER_TOKEN,
    LOSS_PASSES,
    OPTIMIZER_PASSES,
    REWARD_S,
    SAVED_PASSES,
)
from fedcore.plan.cost.memory import Memory, layer_numbers, memory
from fedcore.plan.cost.ppo_flops import PpoFlops, encoder_cost
from fedcore.plan.cost.step_time import Step, Terms, product_rate
from fedcore.plan.cost.workload import DECODER_LAYER, BatchShape, Workload

if TYPE_CHECKING:
    from fedcore.plan.cost.candidate import Candidate
    from fedcore.spec.job import JobSpec

EVALUATIONS = 2  # of greedy summaries of the validation part: before and after a round's training


def sample_memory(
    spec: JobSpec,
    workload: Workload,
    batch: BatchShape,
    limit: float | None,
    accelerator: bool = False,
) -> Memory:
    """Memory of as many samples at a time as fit, by halving; at least those of one prompt.

    ``batch``: as many samples as the job allows, and their lengths.
    """
    options = spec.method
    prompts = max(1, batch.examples // options.samples)
    while True:
        samples = batch.resized(prompts * options.samples)
        shared = replace(samples, encoded=prompts)
        footprint = memory(_plain(workload), shared, accelerator)
        if options.anchor:  # a copy of the weights that were received
            weights = footprint.parts["weights"] + FP32_BYTES * workload.trained
            footprint = replace(footprint, parts={**footprint.parts, "weights": weights})
        if options.supervised_steps:
            supervised = memory(workload, samples, accelerator)
            footprint = max(footprint, supervised, key=lambda item: item.peak)
        if spec.train.micro_batch or not limit or prompts == 1 or footprint.peak <= limit:
            return footprint
        prompts = -(-prompts // 2)


def _plain(workload: Workload) -> Workload:
    """The same workload with the kernels of PPO's passes."""
    return replace(workload, kernels="plain", coefficients=KERNEL_COEFFICIENTS["plain"])


@dataclass(frozen=True)
class PpoSchedule:
    """A round of ``steps``, of which the first ``supervised_steps`` are supervised.

    Each of the ``draws`` covers ``prompts`` prompts with ``samples`` samples each, processed in
    ``parts`` pieces that are in memory one at a time.
    """

    steps: int
    supervised_steps: int
    draws: int
    prompts: int
    parts: int
    samples: int
    anchored: bool

    @classmethod
    def of(cls, spec: JobSpec, steps: int, examples: int) -> PpoSchedule:
        """``examples``: samples that are in memory at a time."""
        options, train = spec.method, spec.train
        supervised_steps = min(options.supervised_steps, steps - 1)
        at_once = max(1, examples // options.samples)
        return cls(
            steps=steps,
            supervised_steps=supervised_steps,
            draws=math.ceil((steps - supervised_steps) / options.passes),
            prompts=train.batch_size * train.accumulation,
            parts=math.ceil(train.batch_size / at_once) * train.accumulation,
            samples=options.samples,
            anchored=options.anchor > 0,
        )

    @property
    def ppo_steps(self) -> int:
        return self.steps - self.supervised_steps


def mean_step(
    schedule: PpoSchedule,
    workload: Workload,
    device: Candidate,
    padded: BatchShape,
    supervised: Step,
) -> Step:
    """The mean of a round's steps; ``supervised``: one of its supervised steps.

    ``padded``: the lengths to which prompts are padded. The device must be a measured one.
    """
    passes = _Passes.of(schedule, workload, device, padded.source)
    phases, bytes_moved = passes.seconds_and_bytes()
    phases["load_s"] = schedule.draws * schedule.prompts * LOAD_S_PER_TOKEN * device.source
    phases["loss_s"] += schedule.draws * schedule.prompts * schedule.samples * REWARD_S
    # Needed FLOPs leave padding out, as those of supervised training do.
    flops = PpoFlops.of(workload.sizes, workload.cost.training, workload.encoder_is_fixed)
    prompts = [(round(device.source), round(device.target))]
    samples = prompts * schedule.samples
    sampling = flops.sampling(prompts, samples, schedule.anchored)
    learning = flops.learning(prompts, samples)
    ppo_flops = schedule.prompts * float(schedule.draws * sampling + schedule.ppo_steps * learning)
    share = schedule.supervised_steps / schedule.steps

    def mean(of_supervised: float, of_ppo: float) -> float:
        return share * of_supervised + of_ppo / schedule.steps

    return Step(
        {name: mean(seconds, phases[name]) for name, seconds in supervised.phases.items()},
        mean(supervised.flops, ppo_flops),
        mean(supervised.moved, bytes_moved),
        supervised.peak_flops,
    )


@dataclass(frozen=True)
class _Passes:
    """The passes over the prompts of one draw, or over all samples of them.

    ``length``: (source, target) tokens to which each is padded. ``rate``: FLOP/s of products;
    ``bandwidth``: bytes/s of memory.
    """

    schedule: PpoSchedule
    workload: Workload
    length: tuple[int, int]
    rate: float
    bandwidth: float

    @classmethod
    def of(
        cls, schedule: PpoSchedule, workload: Workload, device: Candidate, source: float
    ) -> _Passes:
        rate = product_rate(device.hardware, workload.precision)
        bandwidth = device.hardware.bandwidth_bps
        assert rate is not None and bandwidth is not None, "a measured device"
        length = (round(source), round(device.longest[1]))
        return cls(schedule, _plain(workload), length, rate, bandwidth)

    @property
    def _prompts(self) -> BatchShape:
        return BatchShape(self.schedule.prompts, *self.length)

    @property
    def _samples(self) -> BatchShape:
        return self._prompts.resized(self.schedule.prompts * self.schedule.samples)

    def seconds_and_bytes(self) -> tuple[dict[str, float], float]:
        """(seconds by phase, bytes of memory traffic) of all PPO steps."""
        steps = self.schedule.ppo_steps
        by_phase = {name: part * steps for name, part in self._learning().items()}
        passes = 2 if self.schedule.anchored else 1  # by the policy, and by the anchor
        encoded = 1 if self.workload.encoder_is_fixed else passes
        log_probabilities = (self._decoding + self._logits * 0.5) * passes
        sampling = self._encoding * encoded + self._generation + log_probabilities
        by_phase["forward_s"] += sampling * self.schedule.draws
        kernels = self.workload.coefficients
        seconds = {name: part.seconds(kernels) for name, part in by_phase.items()}
        return seconds, self.bandwidth * sum(part.memory_s for part in by_phase.values())

    def _learning(self) -> dict[str, Terms]:
        """One pass with gradients over all samples, and the optimizer step."""
        workload, forward = self.workload, self._decoding
        sizes = workload.sizes
        backward = self._decoding * (2 * workload.saved_decoder_layers / sizes.decoder_layers)
        if not workload.encoder_is_fixed:
            forward += self._encoding
            backward += self._encoding * (2 * workload.saved_encoder_layers / sizes.encoder_layers)
        flops = PpoFlops.of(sizes, workload.cost.training, workload.encoder_is_fixed)
        step_flops = flops.learning([self.length], [self.length] * self.schedule.samples)
        product_s = self.schedule.prompts * step_flops / self.rate - forward.product_s
        weights = OPTIMIZER_PASSES * FP32_BYTES * workload.trained
        return {
            "forward_s": forward,
            "loss_s": self._logits,
            "backward_s": replace(backward, product_s=product_s),
            "optimizer_s": Terms(memory_s=weights / self.bandwidth),
        }

    @property
    def _encoding(self) -> Terms:
        """The encoder's forward pass over the prompts."""
        sizes, batch, parts = self.workload.sizes, self._prompts, self.schedule.parts
        numbers, _ = layer_numbers(self.workload, batch)
        scores = batch.examples * sizes.heads * batch.source**2
        calls = parts * CALLS_PER_LAYER * sizes.encoder_layers
        flops = batch.examples * encoder_cost(sizes).of([self.length])
        moved = sizes.encoder_layers * self._layer_bytes(numbers, scores)
        return self._terms(flops, moved + parts * self.workload.encoder_bytes, calls)

    @property
    def _decoding(self) -> Terms:
        """The decoder's forward pass over whole samples."""
        sizes, batch, parts = self.workload.sizes, self._samples, self.schedule.parts
        _, numbers = layer_numbers(self.workload, batch)
        scores = batch.examples * sizes.heads * batch.target * (batch.target + batch.source)
        calls = parts * CALLS_PER_LAYER * DECODER_LAYER * sizes.decoder_layers
        moved = sizes.decoder_layers * self._layer_bytes(numbers, scores)
        forward = self.workload.cost.forward.of([self.length])
        flops = batch.examples * (forward - encoder_cost(sizes).of([self.length]))
        return self._terms(flops, moved + parts * self.workload.decoder_bytes, calls)

    @property
    def _generation(self) -> Terms:
        """Decoding token by token: each reads the decoder's weights and the cached keys, values."""
        sizes, batch = self.workload.sizes, self._samples
        once = self._decoding
        weights = self.schedule.parts * self.workload.decoder_bytes
        positions = batch.target * (batch.source + batch.target / 2)
        layer_width = 2 * sizes.inner * sizes.decoder_layers
        cache = layer_width * self.workload.number_bytes * batch.examples * positions
        moved = (batch.target - 1) * weights + cache
        others = Terms(memory_s=moved / self.bandwidth, calls=(batch.target - 1) * once.calls)
        return once + others + self._logits * 0.5

    @property
    def _logits(self) -> Terms:
        """Memory traffic of the logits, forward and backward."""
        batch = self._samples
        logits = batch.examples * batch.target * self.workload.sizes.vocab
        return Terms(memory_s=LOSS_PASSES * FP32_BYTES * logits / self.bandwidth)

    def _layer_bytes(self, numbers: float, scores: float) -> float:
        """Bytes that one layer's operators move."""
        numbers += self.workload.saved_activations.scores * scores
        return SAVED_PASSES * self.workload.number_bytes * numbers

    def _terms(self, flops: float, moved: float, calls: float) -> Terms:
        return Terms(flops / self.rate, moved / self.bandwidth, calls)
