"""Login and logout, passwords, API tokens, users."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from tests.web import factories
from webapp.accounts.models import PersonToken, Role, User


def log_in(client: Client, name: str, password: str, target: str = "") -> int:
    answer = client.post(reverse("login"), {"username": name, "password": password, "next": target})
    return answer.status_code


@pytest.mark.django_db
def test_log_in_and_out(client: Client) -> None:
    factories.make_user("ada")
    assert (
        "Wrong username or password"
        in client.post(reverse("login"), {"username": "ada", "password": "no"}).content.decode()
    )
    assert log_in(client, "ada", factories.PASSWORD) == 302
    assert client.get("/").status_code == 200
    assert client.get(reverse("logout")).status_code == 405
    client.post(reverse("logout"))
    assert client.get("/").status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example", "javascript:x"])
def test_login_redirects_only_to_this_site(client: Client, target: str) -> None:
    factories.make_user("ada")
    answer = client.post(
        reverse("login"), {"username": "ada", "password": factories.PASSWORD, "next": target}
    )
    assert answer["Location"] == "/"


@pytest.mark.django_db
def test_too_many_attempts_lock_the_login(client: Client) -> None:
    factories.make_user("ada")
    codes = [log_in(client, "ada", "wrong") for _ in range(11)]
    assert codes[-1] == 429
    answer = client.post(reverse("login"), {"username": "ada", "password": factories.PASSWORD})
    assert "Too many attempts" in answer.content.decode()


def test_change_password(as_role: Callable[[str], Client]) -> None:
    client = as_role("viewer")
    form = {"old_password": "nope", "new_password1": "a long new one 7", "new_password2": "other"}
    text = client.post(reverse("profile"), form).content.decode()
    assert "current password is wrong" in text
    assert "The new passwords don" in text
    good = form | {"old_password": factories.PASSWORD, "new_password2": "a long new one 7"}
    assert client.post(reverse("profile"), good).status_code == 302
    assert client.get(reverse("profile")).status_code == 200
    assert User.objects.get(username="viewer-person").check_password("a long new one 7")


def test_token_is_shown_once_and_revoked(as_role: Callable[[str], Client]) -> None:
    client = as_role("operator")
    page = client.post(reverse("tokens"), {"label": "nightly"}).content.decode()
    secret = page.split('<pre id="secret">')[1].split("<")[0]
    assert len(secret) > 20
    assert secret not in client.get(reverse("tokens")).content.decode()
    token = PersonToken.objects.get()
    other = Client()
    other.force_login(factories.make_user("eve"))
    other.post(reverse("token-revoke", args=[token.public_id]))
    assert PersonToken.objects.count() == 1
    client.post(reverse("token-revoke", args=[token.public_id]))
    assert PersonToken.objects.count() == 0


def test_admin_creates_and_changes_users(as_role: Callable[[str], Client]) -> None:
    admin = as_role("admin")
    weak = {"username": "bob", "email": "", "role": "operator", "password": "12345678"}
    assert "too common" in admin.post(reverse("users"), weak).content.decode()
    admin.post(reverse("users"), weak | {"password": "a much longer one"})
    bob = User.objects.get(username="bob")
    assert bob.role == Role.OPERATOR
    assert bob.check_password("a much longer one")
    admin.post(reverse("user-change", args=[bob.pk]), {"role": "viewer"})
    bob.refresh_from_db()
    assert (bob.role, bob.is_active) == ("viewer", False)


def test_users_cannot_change_their_own_role(as_role: Callable[[str], Client]) -> None:
    operator = as_role("operator")
    me = User.objects.get(username="operator-person")
    answer = operator.post(reverse("user-change", args=[me.pk]), {"role": "admin"})
    assert answer.status_code == 403
    admin = as_role("admin")
    self_ = User.objects.get(username="admin-person")
    admin.post(reverse("user-change", args=[self_.pk]), {"role": "viewer"})
    self_.refresh_from_db()
    assert self_.role == Role.ADMIN
