"""Rebuilding a model from the cached one and a step, and all ways in which that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from fedcore.errors import ServerRefused
from fedcore.formats.codec_chain import Chain
from fedcore.formats.wire_offer import StepOffer
from fedcore.wire.downlink import StepSource, send_step
from fedcore.wire.frame import FrameInfo, write_frame
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload
from workers.agent.assignment.model_step import rebuild_model


@dataclass
class Site:
    """A server's files of one round, and a device's cache with the previous model."""

    folder: Path
    base: FrameInfo
    next: FrameInfo
    step: FrameInfo
    requests: list[str] = field(default_factory=list)

    @property
    def cache(self) -> ArtefactCache:
        return ArtefactCache(self.folder / "cache")

    @property
    def offer(self) -> StepOffer:
        return StepOffer(self.step.sha256, self.step.size, self.base.sha256)

    def fetch(self, sha256: str, size: int) -> Path:
        self.requests.append(sha256)
        path = self.folder / "cache" / sha256
        path.write_bytes((self.folder / "step").read_bytes())
        return path

    def rebuilt(self, offer: StepOffer | None, fetch: Callable[[str, int], Path]) -> Path | None:
        return rebuild_model(self.cache, offer, self.next.sha256, self.next.size, fetch)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    tensors = {"a": torch.randn(40, 30), "b": torch.randn(7)}
    frame = write_frame(tmp_path / "model-0", tensors, {"kind": "global"})
    next_tensors = {
        name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in tensors.items()
    }
    write_frame(tmp_path / "wished", next_tensors, {"kind": "global"})
    write_frame(tmp_path / "state-0", {}, {"kind": "state"})
    folded = StepSource(tmp_path / "model-0", tmp_path / "wished", None, tmp_path / "state-0")
    paths = (tmp_path / "step", tmp_path / "model-1", tmp_path / "state-1")
    sent = send_step(Chain("int8"), folded, frame.sha256, *paths)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / frame.sha256).write_bytes((tmp_path / "model-0").read_bytes())
    return Site(tmp_path, frame, sent.model, sent.step)


def test_next_model_is_rebuilt_bit_for_bit_and_cached(site: Site) -> None:
    path = site.rebuilt(site.offer, site.fetch)
    assert path is not None and path.name == site.next.sha256
    assert path.read_bytes() == (site.folder / "model-1").read_bytes()
    assert site.cache.get(site.next.sha256, site.next.size) == path
    cached = {item.name for item in (site.folder / "cache").iterdir()}
    assert cached == {site.base.sha256, site.next.sha256}, "the step itself is not kept"


def test_nothing_is_fetched_without_step_or_base(site: Site) -> None:
    assert site.rebuilt(None, site.fetch) is None
    assert site.rebuilt(replace(site.offer, base="0" * 64), site.fetch) is None
    assert site.requests == []


def spoilt(site: Site) -> Callable[[str, int], Path]:
    """A valid step that leads to another model."""

    def fetch(sha256: str, size: int) -> Path:
        path = site.fetch(sha256, size)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return path

    return fetch


def garbage(site: Site) -> Callable[[str, int], Path]:
    def fetch(sha256: str, size: int) -> Path:
        path = site.fetch(sha256, size)
        path.write_bytes(b"nonsense" * 20)
        return path

    return fetch


def refused(site: Site) -> Callable[[str, int], Path]:
    def fetch(sha256: str, size: int) -> Path:
        raise ServerRefused("no such artefact", 404)

    return fetch


def broken(site: Site) -> Callable[[str, int], Path]:
    def fetch(sha256: str, size: int) -> Path:
        raise BrokenDownload("the bytes are others")

    return fetch


@pytest.mark.parametrize("make", [spoilt, garbage, refused, broken])
def test_unusable_step_leaves_the_whole_download(
    site: Site, make: Callable[[Site], Callable[[str, int], Path]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert site.rebuilt(site.offer, make(site)) is None
    assert site.next.sha256[:12] in caplog.text
    assert site.cache.get(site.next.sha256, site.next.size) is None
    assert site.cache.get(site.base.sha256, site.base.size) is not None
