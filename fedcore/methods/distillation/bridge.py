"""Bridge samples: the text that all nodes of a tree share and distil over."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedcore.methods.distillation.packed_logits import PackedLogits
from fedcore.train.tokenization import TokenizedDataset, TokenizedExample


@dataclass(frozen=True)
class BridgeExample(TokenizedExample):
    """An example and the row of the bridge's logits at which its target tokens begin."""

    first: int

    @property
    def rows(self) -> Tensor:
        return torch.arange(self.first, self.first + len(self.target))


class Bridge(TokenizedDataset):
    """Tokenized examples whose target tokens are numbered consecutively from 0."""

    @classmethod
    def of(cls, examples: TokenizedDataset) -> Bridge:
        return cls(examples.folder, [int(row) for row in examples._rows])

    @cached_property
    def _firsts(self) -> list[int]:
        return [0, *accumulate(target for _, target in self.lengths)]

    @property
    def rows(self) -> int:
        """Number of target tokens of all examples."""
        return self._firsts[-1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the token ids: equal where nodes have the same text and tokenizer."""
        digest = hashlib.sha256()
        for number in range(len(self)):
            example = self[number]
            for ids in (example.source, example.target):
                digest.update(len(ids).to_bytes(4, "little"))
                digest.update(np.ascontiguousarray(ids, dtype="<i4").tobytes())
        return digest.hexdigest()

    def __getitem__(self, index: Any) -> Any:
        example = super().__getitem__(index)
        return BridgeExample(example.source, example.target, self._firsts[index])


@dataclass(frozen=True)
class TeacherSignal:
    """The bridge and the teacher's logits on it (None: no teacher has trained yet).

    ``bridge_only``: the node is an inner one, whose only examples are the bridge's.
    """

    bridge: Bridge
    logits: PackedLogits | None = None
    bridge_only: bool = False
