"""Derived seeds: equal for a purpose everywhere, different for different purposes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from fedcore.seeds import derive

LABELS = st.lists(st.one_of(st.text(max_size=8), st.integers(-5, 1000)), max_size=4)


@given(st.integers(0, 2**31 - 1), LABELS)
def test_a_seed_fits_every_generator(seed: int, labels: list[str | int]) -> None:
    assert 0 <= derive(seed, *labels) < 2**63
    assert derive(seed, *labels) == derive(seed, *labels)


def test_derive_known_answer() -> None:
    """The first 8 bytes of SHA-256 over the parts joined by the unit separator, halved."""
    digest = hashlib.sha256(b"7\x1ftrain\x1f3\x1f0").digest()
    assert derive(7, "train", 3, 0) == int.from_bytes(digest[:8], "big") // 2
    assert derive(7, "train", 3, 0) == 51_999_710_925_221_110


def test_derived_seeds_differ_by_purpose() -> None:
    seeds = {
        derive(seed, what, number, slot)
        for seed in range(4)
        for what in ("train", "select", "split")
        for number in range(20)
        for slot in range(20)
    }
    assert len(seeds) == 4 * 3 * 20 * 20
    assert derive(1, "a", 12) != derive(1, "a", 1, 2) != derive(1, "a1", 2)


def test_derive_ignores_the_hash_seed() -> None:
    code = "from fedcore.seeds import derive; print(derive(7, 'train', 3, 0))"
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert int(done.stdout) == derive(7, "train", 3, 0)
