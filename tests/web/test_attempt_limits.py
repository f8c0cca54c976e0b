"""Limits of passwords and enrolments: by address, and of hashes that run at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import check_password, make_password
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from tests.web import factories
from webapp.accounts import hashers
from webapp.common.address_limits import AddressLimit, TooManyRequests
from webapp.common.client_address import limit_address
from webapp.common.rate import Rate
from webapp.common.settings_checks import trusted_networks
from webapp.jobs.lifecycle import enrolment

OFFICE, ELSEWHERE = "203.0.113.9", "198.51.100.1"
V6 = "2001:db8:1:2::"


@pytest.fixture(autouse=True)
def three_a_minute(settings: Any) -> None:
    settings.PASSWORD_RATE = settings.ENROL_RATE = Rate(3, 60.0)


def log_in(address: str, name: str = "nobody", password: str = "wrong", **more: str) -> Any:
    form = {"username": name, "password": password}
    return Client(REMOTE_ADDR=address, **more).post(reverse("login"), form)


@pytest.mark.django_db
def test_wrong_passwords_are_limited_by_address() -> None:
    factories.make_user("ada")
    assert [log_in(OFFICE, f"user-{n}").status_code for n in range(4)] == [200, 200, 200, 429]
    answer = log_in(OFFICE, "ada", factories.PASSWORD)
    assert answer.status_code == 429
    assert 15 <= int(answer["Retry-After"]) <= 20
    text = answer.content.decode()
    assert "Too many passwords were tried from this address" in text
    assert f"Try again in {answer['Retry-After']} s, at <time" in text
    assert "js/theme.js" in text and "css/tokens.css" in text
    assert log_in(ELSEWHERE, "ada", factories.PASSWORD).status_code == 302


@pytest.mark.django_db
def test_right_passwords_do_not_count() -> None:
    factories.make_user("ada")
    codes = [log_in(OFFICE, "ada", factories.PASSWORD).status_code for _ in range(5)]
    assert codes == [302] * 5
    assert log_in(OFFICE).status_code == 200


@pytest.mark.django_db
def test_a_forged_header_does_not_move_the_limit() -> None:
    codes = [log_in(OFFICE, HTTP_X_FORWARDED_FOR=f"192.0.2.{n}").status_code for n in range(4)]
    assert codes == [200, 200, 200, 429]


@pytest.mark.django_db
def test_a_trusted_proxy_tells_clients_apart(settings: Any) -> None:
    settings.TRUSTED_PROXIES = trusted_networks(["10.0.0.2", "10.0.0.3"])

    def through(chain: str) -> int:
        return log_in("10.0.0.2", HTTP_X_FORWARDED_FOR=chain).status_code

    forged = [through(f"192.0.2.{n}, {OFFICE}, 10.0.0.3") for n in range(4)]
    assert forged == [200, 200, 200, 429]
    assert through(f"{OFFICE}, {ELSEWHERE}, 10.0.0.3") == 200


@pytest.mark.django_db
def test_a_64_counts_as_one_address() -> None:
    assert [log_in(f"{V6}{n}").status_code for n in range(1, 5)] == [200, 200, 200, 429]
    assert log_in("2001:db8:1:3::1").status_code == 200


@pytest.mark.django_db
def test_a_user_is_locked_for_a_64_and_not_for_others(settings: Any) -> None:
    settings.PASSWORD_RATE = Rate(1000, 60.0)
    factories.make_user("ada")
    answers = [log_in(f"{V6}{n}", "ada") for n in range(1, 12)]
    assert answers[-1].status_code == 429
    assert answers[-1]["Retry-After"] == "900"
    assert "Try again in 15 min" in answers[-1].content.decode()
    assert log_in(f"{V6}ff", "ada", factories.PASSWORD).status_code == 429
    assert log_in(OFFICE, "ada", factories.PASSWORD).status_code == 302


@pytest.mark.django_db
def test_the_admin_shares_the_limit() -> None:
    form = {"username": "ada", "password": "wrong"}
    client = Client(REMOTE_ADDR=OFFICE)
    codes = [client.post("/admin/login/", form).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]
    assert log_in(OFFICE).status_code == 429


def test_a_stolen_session_cannot_guess_the_password(as_role: Callable[[str], Client]) -> None:
    form = {"old_password": "guess", "new_password1": "a long new one 7"}
    form["new_password2"] = form["new_password1"]
    client = as_role("viewer")
    codes = [client.post(reverse("profile"), form).status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]


def test_the_admin_changes_passwords_on_the_same_page(as_role: Callable[[str], Client]) -> None:
    answer = as_role("admin").post("/admin/password_change/", {"old_password": "guess"})
    assert (answer.status_code, answer["Location"]) == (302, reverse("profile"))


def test_a_stolen_token_cannot_guess_the_password(viewer: Any) -> None:
    client = APIClient()
    client.force_authenticate(viewer)
    guess = {"old_password": "guess", "new_password": "correct-horse-9"}
    answers = [client.post("/api/v1/me/password/", guess, format="json") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 429]
    assert answers[-1]["Content-Type"] == "application/problem+json"
    assert answers[-1].json()["status"] == 429
    assert 15 <= int(answers[-1]["Retry-After"]) <= 20


def enrol(address: str, token: str, name: str = "pi", **more: str) -> Any:
    body = {"token": token, "name": name, "agent_version": "0.1.0", "profile": {}, "datasets": []}
    return APIClient(REMOTE_ADDR=address, **more).post("/api/v1/enrol/", body, format="json")


@pytest.mark.django_db
def test_guessed_enrolments_are_limited_without_locking_out_others() -> None:
    tokens = [enrolment.create_enrolment(None, "", "both", timedelta(hours=1))[1] for _ in range(6)]
    own = [enrol(OFFICE, tokens[n], f"pi-{n}").status_code for n in range(5)]
    assert own == [201] * 5, "valid tokens do not count"
    guesses = [enrol(OFFICE, "ew-guess", HTTP_X_FORWARDED_FOR=f"192.0.2.{n}") for n in range(4)]
    assert [answer.status_code for answer in guesses] == [403, 403, 403, 429]
    assert "try again in" in guesses[-1].json()["detail"]
    assert 15 <= int(guesses[-1]["Retry-After"]) <= 20
    assert enrol(ELSEWHERE, tokens[5], "pi-5").status_code == 201


@pytest.mark.django_db
def test_anonymous_calls_are_counted_by_address(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webapp.api.people_throttle import PeopleThrottle

    monkeypatch.setitem(PeopleThrottle.THROTTLE_RATES, "people", "2/min")
    throttle = PeopleThrottle()
    client = APIClient(REMOTE_ADDR=OFFICE)
    request = client.get("/api/v1/me/", HTTP_X_FORWARDED_FOR=ELSEWHERE).wsgi_request
    assert throttle.get_ident(request) == limit_address(request) == OFFICE


def test_tokens_return_with_time_and_addresses_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, rf: Any
) -> None:
    from webapp.common import address_limits

    now = [1000.0]
    monkeypatch.setattr(address_limits.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(address_limits, "MAX_ADDRESSES", 2)
    limit = AddressLimit("too many", lambda: Rate(2, 60.0))
    request = rf.get("/", REMOTE_ADDR=OFFICE)
    limit.take(request)
    limit.take(request)
    with pytest.raises(TooManyRequests, match="too many; try again in 30 s"):
        limit.take(request)
    now[0] += 29.9
    with pytest.raises(TooManyRequests) as refusal:
        limit.take(request)
    assert refusal.value.wait == 1
    now[0] += 0.2
    limit.take(request)
    for address in ("192.0.2.1", "192.0.2.2"):
        limit.take(rf.get("/", REMOTE_ADDR=address))
    assert len(limit._buckets) == 2


def test_attempts_side_by_side_cannot_outrun_the_limit(rf: Any) -> None:
    limit = AddressLimit("too many", lambda: Rate(5, 3600.0))
    request, start, admitted = rf.get("/", REMOTE_ADDR=OFFICE), threading.Barrier(24), []

    def attempt() -> None:
        start.wait()
        try:
            limit.take(request)
        except TooManyRequests:
            return
        admitted.append(1)

    threads = [threading.Thread(target=attempt) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 5


class Slots:
    """Threads that hold a slot until ``leave`` is set; ``events`` is what became of each."""

    def __init__(self) -> None:
        self.leave = threading.Event()
        self.events: list[str] = []
        self._threads: list[threading.Thread] = []

    def enter(self, count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._hold)
            thread.start()
            self._threads.append(thread)

    def _hold(self) -> None:
        try:
            with hashers.hashing_slot():
                self.events.append("runs")
                self.leave.wait(20)
        except TooManyRequests:
            self.events.append("refused")

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def wait_for_events(slots: Slots, count: int) -> None:
    for _ in range(1000):
        if len(slots.events) >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(slots.events)


def test_four_hash_four_wait_and_the_ninth_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashers, "WAIT_S", 20.0)
    slots = Slots()
    slots.enter(8)
    wait_for_events(slots, 4)
    assert slots.events == ["runs"] * 4
    while hashers._places.acquire(blocking=False):  # until all eight threads have a place
        hashers._places.release()
    with pytest.raises(TooManyRequests) as refusal, hashers.hashing_slot():
        pass
    assert refusal.value.wait == 5
    slots.leave.set()
    slots.join()
    assert slots.events == ["runs"] * 8


def test_whoever_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashers, "WAIT_S", 0.05)
    slots = Slots()
    slots.enter(6)
    wait_for_events(slots, 6)
    assert sorted(slots.events) == ["refused"] * 2 + ["runs"] * 4
    slots.leave.set()
    slots.join()
    with hashers.hashing_slot():
        pass


@pytest.mark.parametrize("algorithm", ["argon2", "pbkdf2_sha256"])
def test_hashes_are_djangos_and_need_a_slot(
    settings: Any, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    from webapp import settings as site

    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.Argon2PasswordHasher",
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    ]
    before = make_password("secret", hasher=algorithm)
    settings.PASSWORD_HASHERS = site.PASSWORD_HASHERS
    assert check_password("secret", before) and not check_password("other", before)
    monkeypatch.setattr(hashers, "_places", threading.Semaphore(0))
    with pytest.raises(TooManyRequests):
        check_password("secret", before)
    with pytest.raises(TooManyRequests):
        make_password("secret", hasher=algorithm)


@pytest.mark.django_db
def test_every_place_that_hashes_answers_429_when_busy(
    settings: Any, monkeypatch: pytest.MonkeyPatch, admin: Any
) -> None:
    from webapp import settings as site

    settings.PASSWORD_RATE = Rate(1000, 60.0)
    page, api = Client(), APIClient()
    admin.is_staff = admin.is_superuser = True
    admin.save()
    page.force_login(admin)
    api.force_authenticate(admin)
    settings.PASSWORD_HASHERS = site.PASSWORD_HASHERS
    admin.set_password("pass-word-1")
    admin.save()
    page.force_login(admin)
    monkeypatch.setattr(hashers, "_places", threading.Semaphore(0))
    new, long = "a much longer one", "another-horse-9"
    change = {"old_password": "pass-word-1", "new_password1": new, "new_password2": new}
    created = {"username": "eve", "role": "viewer", "email": ""}
    passwords = {"password1": new, "password2": new, "usable_password": "true"}
    pages = [
        Client().post(reverse("login"), {"username": "admin", "password": "pass-word-1"}),
        Client().post(reverse("login"), {"username": "nobody", "password": "wrong"}),
        Client().post("/admin/login/", {"username": "admin", "password": "pass-word-1"}),
        page.post(reverse("profile"), change),
        page.post(reverse("users"), {**created, "password": new}),
        page.post("/admin/accounts/user/add/", {**created, **passwords}),
        page.post(f"/admin/accounts/user/{admin.pk}/password/", passwords),
    ]
    calls = [
        api.post("/api/v1/users/", {"username": "eve", "password": long}, format="json"),
        api.patch(f"/api/v1/users/{admin.pk}/", {"password": long}, format="json"),
        api.post(
            "/api/v1/me/password/",
            {"old_password": "pass-word-1", "new_password": long},
            format="json",
        ),
    ]
    assert [answer.status_code for answer in pages + calls] == [429] * 10
    assert {answer["Retry-After"] for answer in pages + calls} == {"5"}
    assert all("This site is checking many passwords now" in page.text for page in pages)
    assert {answer["Content-Type"] for answer in calls} == {"application/problem+json"}
