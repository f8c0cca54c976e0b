from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from webapp.accounts import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("login/", views.sign_in, name="login"),
    path("logout/", views.sign_out, name="logout"),
    path("profile/", views.profile, name="profile"),
    path("tokens/", views.tokens, name="tokens"),
    path("tokens/<uuid:public_id>/revoke/", views.token_revoke, name="token-revoke"),
    path("users/", views.users, name="users"),
    path("users/<int:user_id>/", views.user_change, name="user-change"),
]
