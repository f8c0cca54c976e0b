"""Account pages: login and logout, profile, API tokens, users."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from webapp.accounts.access import MANAGE_USERS, current_user, get_permitted_or_404, require
from webapp.accounts.forms import NewUserForm, PasswordForm, RoleForm, SignInForm, TokenForm
from webapp.accounts.models import Role, User, create_token, revoke_token, tokens_of
from webapp.common.address_limits import PASSWORD_LIMIT


@login_not_required
@never_cache
@sensitive_post_parameters("password")
def sign_in(request: HttpRequest) -> HttpResponse:
    target = request.POST.get("next") or request.GET.get("next") or ""
    if request.user.is_authenticated:
        return HttpResponseRedirect(_safe_redirect(request, target))
    form = SignInForm(request, data=request.POST or None)
    if request.method == "POST" and form.is_valid():
        PASSWORD_LIMIT.give_back(request)
        login(request, form.get_user())
        return HttpResponseRedirect(_safe_redirect(request, target))
    return render(request, "accounts/sign_in.html", {"form": form, "next": target})


def _safe_redirect(request: HttpRequest, target: str) -> str:
    """``target`` if it is an address of this site, else the overview."""
    allowed = url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return target if allowed else resolve_url(settings.LOGIN_REDIRECT_URL)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    messages.success(request, "You are logged out.")
    return redirect("login")


@never_cache
@sensitive_post_parameters()
def profile(request: HttpRequest) -> HttpResponse:
    user = current_user(request)
    form = PasswordForm(user, request.POST or None)
    if request.method == "POST":
        PASSWORD_LIMIT.take(request)
    if request.method == "POST" and form.is_valid():
        PASSWORD_LIMIT.give_back(request)
        update_session_auth_hash(request, form.save())
        messages.success(request, "Password changed. Other browsers are logged out.")
        return redirect("profile")
    return render(request, "accounts/profile.html", {"form": form})


@never_cache
def tokens(request: HttpRequest) -> HttpResponse:
    user = current_user(request)
    form = TokenForm(request.POST or None)
    context = {"form": form, "secret": "", "server": settings.PUBLIC_URL}
    if request.method == "POST" and form.is_valid():
        token, secret = create_token(user, form.cleaned_data["label"])
        context |= {"secret": secret, "token": token, "form": TokenForm()}
    context["tokens"] = tokens_of(user)
    return render(request, "accounts/tokens.html", context)


@require_POST
def token_revoke(request: HttpRequest, public_id: UUID) -> HttpResponse:
    if revoke_token(current_user(request), public_id):
        messages.success(request, "Token revoked. Scripts that use it now get 401.")
    else:
        messages.error(request, "You have no such token. It may have been revoked already.")
    return redirect("tokens")


@require(MANAGE_USERS)
@sensitive_post_parameters("password")
def users(request: HttpRequest) -> HttpResponse:
    form = NewUserForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = form.save()
        messages.success(request, f"{user.username} can now log in as {user.role}.")
        return redirect("users")
    people = User.objects.order_by("username")
    context = {"form": form, "people": people, "roles": Role.choices}
    return render(request, "accounts/users.html", context)


@require_POST
def user_change(request: HttpRequest, user_id: int) -> HttpResponse:
    changed = get_permitted_or_404(request, User.objects.all(), MANAGE_USERS, pk=user_id)
    form = RoleForm(request.POST)
    if changed.pk == request.user.pk:
        messages.error(request, "You cannot change your own role or deactivate yourself.")
    elif not form.is_valid():
        messages.error(request, "Choose a role.")
    else:
        changed.role = form.cleaned_data["role"]
        changed.is_active = form.cleaned_data["is_active"]
        changed.save(update_fields=["role", "is_active"])
        change = f"is now {changed.role}" if changed.is_active else "is deactivated"
        messages.success(request, f"{changed.username} {change}.")
    return redirect("users")
