"""Large transfers through the real web server: flat memory, few extra bytes, and they survive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from fedcore.errors import ServerRefused, ServerUnavailable
from tests.stack.transfers import MEGABYTE, Case, Web, prepare, web, web_process
from webapp.jobs.models import Assignment
from workers.agent.agent_errors import Busy
from workers.agent.http.server_api import Address, ServerApi

pytestmark = [pytest.mark.stack, pytest.mark.django_db(transaction=True)]

__all__ = ["prepare", "web", "web_process"]
LARGE = 2**30
MIDDLING = 256 * MEGABYTE
ALLOWED_GROWTH = 24 * MEGABYTE


class Peak:
    """A process's peak memory from now on, as the kernel counts it."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        try:
            (self._proc / "clear_refs").write_text("5")
        except OSError:
            pytest.skip("the peak of a process cannot be reset here")
        self._before = psutil.Process(pid).memory_info().rss

    @property
    def growth(self) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 - self._before


@pytest.mark.slow
@pytest.mark.parametrize("size", [LARGE, pytest.param(3 * LARGE, marks=pytest.mark.prove)])
def test_large_transfers_in_flat_memory(
    prepare: Callable[[int], Case], web: Web, size: int
) -> None:
    case = prepare(size)
    traffic = case.server.traffic
    assert web.process is not None
    case.server.assignment(str(case.part.pk))  # whatever is loaded lazily is there
    for transfer in (case.upload, case.fetch):
        up, down = traffic.up, traffic.down
        peaks = [Peak(web.process.pid), Peak(os.getpid())]
        transfer()
        assert [peak.growth < ALLOWED_GROWTH for peak in peaks] == [True, True]
        # Heads and answers of one transfer, counted at the socket.
        assert traffic.up + traffic.down - up - down - case.size < 4096
    case.assert_stored()
    assert case.cache.get(case.model.sha256, case.model.size_bytes) is not None


def test_upload_survives_the_web_process(prepare: Callable[[int], Case], web: Web) -> None:
    case = prepare(MIDDLING)

    def kill() -> None:
        if case.received_bytes > MIDDLING // 4:
            web.kill()

    with pytest.raises(ServerUnavailable):
        case.upload(check=kill)
    stored = case.received_bytes
    assert MIDDLING // 4 < stored < case.size
    web.start()
    up = case.server.traffic.up
    case.upload(resume=True)
    assert case.server.traffic.up - up - (case.size - stored) < 4096, "only what was missing"
    case.assert_stored()


def test_download_survives_the_web_process(prepare: Callable[[int], Case], web: Web) -> None:
    case = prepare(MIDDLING)
    traffic = case.server.traffic

    def kill() -> None:
        if traffic.down > MIDDLING // 4:
            web.kill()

    with pytest.raises(ServerUnavailable):
        case.fetch(kill)
    cut_at = traffic.down
    assert MIDDLING // 4 < cut_at < case.size
    web.start()
    case.fetch()
    # What came twice is no more than what was on its way when the connection was cut.
    assert traffic.down - case.size < 4096
    assert case.cache.get(case.model.sha256, case.model.size_bytes) is not None


def test_upload_in_a_thousand_pieces(prepare: Callable[[int], Case], web: Web) -> None:
    case = prepare(MEGABYTE)
    content = case.update.read_bytes()
    ends = [len(content) * number // 1000 for number in range(1001)]
    url = f"{web.url}/api/v1/device/assignments/{case.part.pk}/update/{case.digest}/"
    headers = {
        "Authorization": f"Device {case.pi.api_token}",
        "Content-Type": "application/offset+octet-stream",
        "Upload-Length": str(len(content)),
    }
    with httpx.Client(timeout=60, headers=headers) as client:
        for start, stop in pairwise(ends):
            offset = {"Upload-Offset": str(start)}
            answer = client.patch(url, content=content[start:stop], headers=offset)
            assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(stop))
    case.assert_stored()


def test_uploads_doubled_slow_or_refused(prepare: Callable[[int], Case], web: Web) -> None:
    """Each is heard by an agent that is still sending, and harms nobody."""
    case = prepare(MIDDLING)
    sent_before = []

    def second() -> None:
        if case.received_bytes > MEGABYTE and not sent_before:
            sent_before.append(case.received_bytes)
            other = ServerApi(Address(web.url, case.pi.api_token))
            with pytest.raises(Busy, match="another request is sending"):
                other.upload(str(case.part.pk), case.update, case.digest)
            assert other.traffic.up < 64 * MEGABYTE, "the answer is heard before the end"
            other.close()
            time.sleep(7)  # two windows of the server, as one may have begun with bytes

    with pytest.raises(Busy, match="slower than 1000 bytes/s"):
        case.upload(check=second)
    assert case.received_bytes >= sent_before[0]
    case.upload(resume=True)
    case.assert_stored()
    case.update.write_bytes(case.update.read_bytes()[:-4])
    with pytest.raises(ServerRefused, match="send them again") as caught:
        case.server.upload(str(case.part.pk), case.update, "0" * 64)
    assert caught.value.status == 422
    Assignment.objects.filter(pk=case.part.pk).update(phase="expired")
    with pytest.raises(ServerRefused, match="expired") as caught:
        case.server.upload(str(case.part.pk), case.update, "1" * 64)
    assert caught.value.status == 409
