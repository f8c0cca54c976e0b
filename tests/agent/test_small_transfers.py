"""Models that come with the work, and updates that leave with the report."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedcore.formats.line_bodies import SMALL_BYTES, UpKind
from fedcore.formats.line_messages import Message, body_of, encode
from tests.agent.stand_in import API_TOKEN, Offered, StandIn
from tests.agent.stub_agent import StubTrainer
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload
from workers.agent.assignment.assigned_work import AssignedWork
from workers.agent.assignment.runner import AssignmentRunner, Dependencies
from workers.agent.http.server_api import Address, ServerApi
from workers.agent.http.socket import Check, no_check
from workers.agent.line.line_api import LineApi
from workers.agent.state.database import StateDatabase
from workers.agent.state.outbox import Outbox
from workers.agent.state.shared_state import SharedState
from workers.agent.telemetry.recorder import AssignmentRecorder

WEIGHTS = os.urandom(SMALL_BYTES)
REST_BYTES = 4000  # of an answer and a report, beside the weights and the update


class DirectCaller:
    """Hands frames to the stand-in as its line would get them."""

    def __init__(self, server: StandIn) -> None:
        self._server = server

    def call(self, kind: UpKind, body: Any, check: Check = no_check) -> dict[str, Any]:
        check()
        frame = json.loads(encode(Message(n=1, kind=kind.value, body=body_of(body))))
        return self._server.take_frame(kind.value, frame["body"]) or {}


class Runs:
    """Runs the stand-in's offers as the training process does."""

    def __init__(self, server: StandIn, folder: Path) -> None:
        self.server, self._folder = server, folder
        self.http = ServerApi(Address(server.url, API_TOKEN))
        self._line = LineApi(DirectCaller(server), self.http.assignment)
        self.cache = ArtefactCache(folder / "cache")
        self._database = StateDatabase(folder / "agent.sqlite3")

    def run(self, offered: Offered) -> None:
        work = AssignedWork.read(self._line.accept(offered.id))
        outbox, shared_state = Outbox(self._database), SharedState(self._database)
        http, clock = self.http, self.http.clock
        with AssignmentRecorder(
            outbox, shared_state, http.traffic, clock.iso, offered.id
        ) as recorder:
            trainer, folder = StubTrainer(), self._folder
            dependencies = Dependencies(
                *(http, self._line, self.cache, trainer, recorder),
                *(folder, no_check, lambda: False),
            )
            AssignmentRunner(work, dependencies).perform()

    def close(self) -> None:
        self.http.close()
        self._database.close()


@pytest.fixture
def runs(server: StandIn, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(server, tmp_path)
    yield runs
    runs.close()


def test_small_model_and_update_need_no_transfer(runs: Runs) -> None:
    server = runs.server
    offered = server.offer(f"bytes={SMALL_BYTES}", weights=WEIGHTS, within_answer=True)
    runs.run(offered)
    assert offered.update == WEIGHTS
    assert offered.phase == "reported"
    assert server.downloads == server.uploads == []
    report = offered.report
    carried = len(base64.b64encode(WEIGHTS))
    for way in ("up", "down"):
        count = report[f"bytes_{way}"]
        assert carried < count < carried + REST_BYTES
        assert report["metrics"][f"net_{way}_bytes"] == count
    assert (report["metrics"]["download_s"], report["metrics"]["upload_s"]) == (0.0, 0.0)


def test_model_within_the_answer_is_cached(runs: Runs) -> None:
    for _ in range(2):
        offered = runs.server.offer("steps=1", weights=WEIGHTS, within_answer=True)
        runs.run(offered)
        assert offered.report["bytes_down"] > len(WEIGHTS), "it came again"
    offered = runs.server.offer("steps=1", weights=WEIGHTS)
    runs.run(offered)
    assert runs.server.downloads == []
    assert offered.report["bytes_down"] == 0


def test_larger_update_is_uploaded(runs: Runs) -> None:
    weights = WEIGHTS + b"!"
    offered = runs.server.offer(f"bytes={len(weights)}", weights=weights)
    runs.run(offered)
    assert offered.update == weights
    assert (runs.server.downloads, runs.server.uploads) == ([""], ["PATCH 0"])
    assert len(weights) < offered.report["bytes_up"] < len(weights) + REST_BYTES


def test_other_bytes_within_the_answer_are_refused(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = runs.server.offer("steps=1", weights=WEIGHTS, within_answer=True)
    work = runs.server.work(offered)
    work["global"]["data"] = base64.b64encode(WEIGHTS[::-1]).decode()
    monkeypatch.setattr(runs.server, "work", lambda _: work)
    with pytest.raises(BrokenDownload):
        runs.run(offered)
    assert runs.cache.get(work["global"]["sha256"], len(WEIGHTS)) is None
    assert offered.phase == "accepted"
