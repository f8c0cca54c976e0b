"""Count the activations saved for the backward pass: ``python -m benchmarks saved_activations``.

Tiny models of different widths train a step with one example and with two. The difference between
the bytes that autograd saved belongs to one example. Least squares over the widths gives the
coefficients ``SavedActivations`` of ``fedcore.plan.cost.coefficients``, as counts of numbers.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.random_model import random_examples, random_model
from fedcore.architecture.sizes import Architecture
from fedcore.methods.session import Session
from fedcore.model.initial import write_initial
from fedcore.plan.cost.workload import Workload
from fedcore.spec.job import JobSpec
from fedcore.spec.options.train import KERNELS
from fedcore.spec.parse import parse_spec

VOCAB = 64
PRECISIONS = ("fp32", "bf16")
KINDS = ("lora", "bottleneck", "full")
# Widths (model, of one head, heads, feed-forward), lengths (source, target), layers: all unlike.
SHAPES = (
    (64, 16, 4, 128, 96, 24, 2),
    (128, 16, 4, 128, 96, 24, 2),
    (64, 32, 4, 128, 96, 24, 2),
    (64, 16, 4, 320, 96, 24, 2),
    (64, 16, 4, 128, 192, 24, 2),
    (64, 16, 4, 128, 96, 80, 2),
    (64, 8, 12, 192, 160, 40, 3),
    (96, 24, 6, 256, 64, 64, 3),
    (128, 16, 4, 128, 96, 24, 4),
)
NAMES = ("attention_d", "attention_inner", "forward_d", "forward_ff", "ends_d", "scores")


@dataclass(frozen=True)
class ActivationFit:
    """Coefficients by name, and the largest relative error of the fit."""

    values: dict[str, float]
    error: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS)
    parser.add_argument("--adapters", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)


def run(args: argparse.Namespace) -> int:
    print(f"| kernels | trains | precision | {' | '.join(NAMES)} | worst |")
    print("| --- " * 3 + "| ---: " * (len(NAMES) + 1) + "|")
    with tempfile.TemporaryDirectory(prefix="edgewise-saved-") as folder:
        for setup in itertools.product(args.kernels, args.adapters, args.precisions):
            result = count_saved_numbers(*setup, Path(folder))
            values = " | ".join(f"{value:.2f}" for value in result.values.values())
            print(f"| {' | '.join(setup)} | {values} | {result.error:.0%} |", flush=True)
    return 0


def count_saved_numbers(kernels: str, kind: str, precision: str, folder: Path) -> ActivationFit:
    """Fit the coefficients of one kernel set, adapter kind and precision."""
    rows, counted = [], []
    for number, shape in enumerate(SHAPES):
        width, inner, heads, forward, source, target, layers = shape
        sizes = Architecture(width, inner, heads, forward, layers, layers, VOCAB)
        model = random_model(sizes, folder / str(number))
        specs = [step_spec(model, kernels, kind, precision, n, source, target) for n in (1, 2)]
        one, two = (saved_bytes(spec, folder) for spec in specs)
        workload = Workload.of(specs[0], sizes, precision)
        adapter_numbers = layers * (source + target) * workload.costs.block_numbers(workload)
        known = layers * 2 * sizes.inner * source + adapter_numbers
        counted.append((two - one) / workload.number_bytes - known)
        rows.append(_row(sizes, source, target, workload.saved_encoder_layers))
    table, right = np.array(rows), np.array(counted)
    coefficients, *_ = np.linalg.lstsq(table / right[:, None], np.ones(len(right)), rcond=None)
    error = float(np.abs(table @ coefficients / right - 1).max())
    return ActivationFit(dict(zip(NAMES, map(float, coefficients), strict=True)), error)


def _row(sizes: Architecture, s: int, t: int, keeping: int) -> list[float]:
    """The factor of each coefficient, as ``fedcore.plan.cost.memory`` counts it.

    ``keeping``: number of encoder layers with saved activations.
    """
    layers, width = sizes.decoder_layers, sizes.d_model
    attention, forward = keeping * s + 2 * layers * t, keeping * s + layers * t
    scores = sizes.heads * (keeping * s * s + layers * (t * t + s * t))
    return [
        width * attention,
        sizes.inner * attention,
        width * forward,
        sizes.d_ff * forward,
        width * (s + t),
        scores,
    ]


def step_spec(
    model: Path, kernels: str, kind: str, precision: str, examples: int, source: int, target: int
) -> JobSpec:
    return parse_spec(
        {
            "model": {"name": str(model)},
            "adapter": {"kind": kind},
            "data": {"max_source_tokens": source, "max_target_tokens": target},
            "train": {
                "kernels": kernels, "precision": precision, "local_steps": 1,
                "batch_size": examples, "micro_batch": examples,
            },
        }
    )  # fmt: skip


def saved_bytes(spec: JobSpec, folder: Path) -> int:
    """Bytes of all storages that autograd saves in one step."""
    weights = folder / "global.safetensors"
    write_initial(spec, weights)
    data = spec.data
    lengths = (data.max_source_tokens, data.max_target_tokens)
    examples = random_examples(folder / "examples", spec.train.batch_size, lengths, VOCAB)
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    session = Session(folder / "cache")
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        session.train(spec, weights, examples, 0, 0)
    return sum(storages.values())
