"""The agent's bulk transfers over real sockets: redirects, cuts, refusals, cancellation."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcore.errors import ServerRefused, ServerUnavailable, Stopped
from tests.agent.transfers import CONTENT, SHA256, Site, fetch
from workers.agent.agent_errors import Busy, Revoked
from workers.agent.assignment.artefact_cache import ArtefactCache, BrokenDownload
from workers.agent.http.server_api import Address, ServerApi


@pytest.fixture
def server(site: Site) -> Iterator[ServerApi]:
    api = ServerApi(Address(site.url, "secret"))
    yield api
    api.close()


def test_both_directions_use_one_counted_connection(
    site: Site, server: ServerApi, cache: ArtefactCache, update: Path
) -> None:
    server.assignment("a")
    before = server.traffic.up, server.traffic.down
    assert fetch(server, cache).read_bytes() == CONTENT
    server.upload("a", update, SHA256)
    assert site.part == CONTENT
    server.unenrol()
    assert site.connections == 1
    up, down = server.traffic.up - before[0], server.traffic.down - before[1]
    assert len(CONTENT) < up < len(CONTENT) + 2500
    assert len(CONTENT) < down < len(CONTENT) + 2000
    assert set(site.tokens) == {"Device secret"}


def test_connection_that_died_while_idle_is_replaced(site: Site, server: ServerApi) -> None:
    site.answers = [(200, {"Connection": "close"}, b"{}"), (200, {}, b"{}")]
    server.assignment("a")
    server.assignment("a")
    assert site.connections == 2


def test_cut_download_resumes(site: Site, server: ServerApi, cache: ArtefactCache) -> None:
    site.cut_at = 1_000_000
    with pytest.raises(ServerUnavailable, match="cut"):
        fetch(server, cache)
    before = server.traffic.down
    assert fetch(server, cache).read_bytes() == CONTENT
    assert server.traffic.down - before < len(CONTENT) - 1_000_000 + 1000


def test_bytes_with_another_hash_are_refused(
    site: Site, server: ServerApi, cache: ArtefactCache
) -> None:
    site.content = CONTENT[:-1] + b"?"
    with pytest.raises(BrokenDownload):
        fetch(server, cache)
    site.content = CONTENT
    assert fetch(server, cache).read_bytes() == CONTENT


def test_server_without_ranges_sends_everything_again(
    site: Site, server: ServerApi, cache: ArtefactCache
) -> None:
    site.cut_at = 1_000_000
    with pytest.raises(ServerUnavailable):
        fetch(server, cache)
    site.answers = [(200, {}, CONTENT)]
    assert fetch(server, cache).read_bytes() == CONTENT


def test_cached_file_is_hashed_once_per_start(
    server: ServerApi, cache: ArtefactCache, tmp_path: Path
) -> None:
    """A power cut may leave a file of the right name and size with other bytes."""
    path = fetch(server, cache)
    assert cache.get(SHA256, len(CONTENT)) == path
    later = ArtefactCache(tmp_path / "cache")
    assert later.get(SHA256, len(CONTENT)) == path
    path.write_bytes(bytes(len(CONTENT)))
    assert ArtefactCache(tmp_path / "cache").get(SHA256, len(CONTENT)) is None
    assert not path.exists()


def test_cancelling_interrupts_a_silent_download(
    site: Site, server: ServerApi, cache: ArtefactCache
) -> None:
    """Cancelled while nothing arrives; the received part is kept for the next attempt."""
    site.stall_at = 500_000
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if server.traffic.down > 500_000:
            raise Stopped("cancelled")

    with pytest.raises(Stopped):
        fetch(server, cache, check)
    assert calls < 1000, "it looks every tenth of a second, not all the time"
    site.stall_at = 0
    before = server.traffic.down
    fetch(server, cache)
    assert server.traffic.down - before < len(CONTENT) - 400_000


def test_upload_resumes_at_the_servers_offset(site: Site, server: ServerApi, update: Path) -> None:
    site.part = CONTENT[:2_000_000]
    server.upload("a", update, SHA256, resume=True)
    assert [line.split()[0] for line in site.heard] == ["HEAD", "PATCH"]
    assert site.part == CONTENT


def test_upload_learns_the_offset_from_a_conflict(
    site: Site, server: ServerApi, update: Path
) -> None:
    site.part = CONTENT[:2_000_000]
    site.answers = [(409, {"Upload-Offset": "2000000", "Connection": "close"}, b"{}")]
    server.upload("a", update, SHA256)
    assert [line.split()[0] for line in site.heard] == ["PATCH", "PATCH"]
    assert site.part == CONTENT


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Revoked), (409, ServerRefused), (413, ServerRefused), (423, Busy), (507, Busy)],
)
def test_refusal_is_noticed_before_all_is_sent(
    site: Site, server: ServerApi, tmp_path: Path, status: int, error: type[Exception]
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**30)
    site.answers = [(status, {"Connection": "close"}, b'{"detail": "no, because"}')]
    with pytest.raises(error) as caught:
        server.upload("a", large, "0" * 64)
    assert server.traffic.up < 2**28
    reason = str(caught.value)
    # A closing connection may take the reason with it, never the chance to try again.
    assert "because" in reason or isinstance(caught.value, ServerUnavailable)


def test_upload_without_progress_is_given_up(site: Site, server: ServerApi, update: Path) -> None:
    site.answers = [(409, {"Upload-Offset": "5", "Connection": "close"}, b"{}")] * 4
    with pytest.raises(ServerUnavailable, match="only a part of the update"):
        server.upload("a", update, SHA256)


def test_redirect_is_followed_once_without_the_token(
    site: Site, server: ServerApi, cache: ArtefactCache
) -> None:
    bucket = Site()
    site.redirect = f"{bucket.url}/bucket/name?signature=x"
    assert fetch(server, cache).read_bytes() == CONTENT
    assert bucket.heard == ["GET /bucket/name?signature=x"]
    assert bucket.tokens == [None]
    bucket.redirect = f"{bucket.url}/elsewhere"
    (cache._folder / SHA256).unlink()
    with pytest.raises(Busy, match="the site's storage answers 307"):
        fetch(server, cache)
    bucket.shutdown()


def test_no_server_is_unavailable(cache: ArtefactCache) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServerUnavailable, match="no answer from the server"):
        fetch(ServerApi(Address(f"http://127.0.0.1:{port}", "secret")), cache)
