"""Wire codecs: speed and bytes on an update of FLAN-T5-small's size, and what they cost in ROUGE.

Without ``--study``: encoding and decoding on one core, tensor by tensor, on normal noise. With it:
whole federations on dialogues with each codec, adapter and seed (``benchmarks.wire_study``).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import wire_study
from fedcore.compute.determinism import torch_threads
from fedcore.formats.codec_chain import parse
from fedcore.formats.update_header import FrameRow
from fedcore.wire.chain import array_of, decode, encode, split_parts
from fedcore.wire.codecs import StochasticRounding
from fedcore.wire.tensor_bytes import unpack

CHAINS = (
    "fp32", "bf16", "fp16", "int8", "int4", "int4+zstd", "top_k(0.1)+int8", "top_k(0.1)+int4+zstd",
    "top_k(0.01)+int8",
)  # fmt: skip
# FLAN-T5-small: two embeddings and many matrices, 76,961,152 numbers.
SIZES = (16_449_536, 16_449_536, *[524_288] * 84, 21_888)
GB = 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeat", type=int, default=3, help="the best time counts")
    parser.add_argument("--chains", nargs="+", default=CHAINS, metavar="CHAIN")
    parser.add_argument("--study", action="store_true", help="ROUGE-L and loss against bytes")
    wire_study.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.study:
        return wire_study.run(args)
    with torch_threads(1), torch.no_grad():
        # Every tensor is a view of the same noise, so the update costs the memory of its largest.
        noise = torch.randn(max(SIZES), generator=torch.Generator().manual_seed(0)) * 1e-3
        update = {f"w{number}": noise[:size] for number, size in enumerate(SIZES)}
        count = sum(SIZES)
        print(f"{count:,} fp32 numbers in {len(SIZES)} tensors, one core, best of {args.repeat}; "
              f"load before {os.getloadavg()[0]:.1f}\n")  # fmt: skip
        print("| codec | encode s | encode GB/s | decode s | decode GB/s | bytes a number | "
              "fewer | relative error |")  # fmt: skip
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for text in args.chains:
            passes = [_pass(text, update) for _ in range(args.repeat)]
            encode_s, decode_s = (
                min(getattr(item, name) for item in passes) for name in ("encode_s", "decode_s")
            )
            timings = CodecTimings(encode_s, decode_s, passes[0].size, passes[0].error)
            speeds = [
                f"{seconds:.2f} | {4 * count / seconds / GB:.2f}"
                for seconds in (timings.encode_s, timings.decode_s)
            ]
            fewer = 4 * count / timings.size
            row = [text, *speeds, f"{timings.size / count:.3f}", f"{fewer:.1f} x"]
            print(f"| {' | '.join([*row, f'{timings.error:.4f}'])} |", flush=True)
    return 0


@dataclass(frozen=True)
class CodecTimings:
    """Seconds, bytes and |x - decoded| / |x| of one pass over the update."""

    encode_s: float
    decode_s: float
    size: int
    error: float


def _pass(text: str, update: Mapping[str, Tensor]) -> CodecTimings:
    chain, total = parse(text), CodecTimings(0.0, 0.0, 0, 0.0)
    lost = signal = 0.0
    for name, tensor in update.items():
        marks = [time.perf_counter()]
        parts = encode(chain, name, tensor, StochasticRounding(1))
        place = FrameRow((name,), tuple(tensor.shape), ("0", "0z"))
        ((key, array),) = array_of(chain, place, parts).items()
        del parts
        marks.append(time.perf_counter())
        row = array if key == "0" else unpack(array, *chain.payload(tensor.numel()))
        decoded = array.float() if chain.whole else decode(
            chain, split_parts(chain, row, tensor.numel()), tensor.shape
        )  # fmt: skip
        marks.append(time.perf_counter())
        lost += float((decoded - tensor).square().sum())
        signal += float(tensor.square().sum())
        total = CodecTimings(
            total.encode_s + marks[1] - marks[0],
            total.decode_s + marks[2] - marks[1],
            total.size + array.numel() * array.element_size(),
            (lost / signal) ** 0.5,
        )
    return total
