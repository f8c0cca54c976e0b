"""Users and tokens in the Django admin, and the base classes of every admin page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.http import HttpRequest

from webapp.accounts.access import MANAGE_USERS, may
from webapp.accounts.models import PersonToken, Role, User

admin.site.site_header = "Edgewise administration"
admin.site.site_title = "Edgewise"
admin.site.site_url = "/"
admin.site.unregister(Group)


class RoleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Access by role instead of Django's permissions; ``is_staff`` is still needed to enter.

    The site's own services create rows, so the admin adds none unless a subclass allows it.
    """

    reads = Role.VIEWER
    changes = Role.ADMIN
    list_per_page = 50
    show_full_result_count = False

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may(request.user, self.reads)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may(request.user, self.reads)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return may(request.user, self.changes)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyAdmin(RoleAdmin):
    """Rows that only the site writes."""

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(User)
class PersonAdmin(UserAdmin):  # type: ignore[type-arg]
    list_display = ["username", "email", "role", "is_active", "is_superuser", "last_login"]
    list_filter = ["role", "is_active", "is_superuser", "is_staff"]
    search_fields = ["username", "first_name", "last_name", "email"]
    date_hierarchy = "date_joined"
    readonly_fields = ["last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["username", "password"]}),
        ("User", {"fields": ["first_name", "last_name", "email"]}),
        ("Permissions", {"fields": ["role", "is_active", "is_staff", "is_superuser"]}),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [
        (None, {"fields": ["username", "usable_password", "password1", "password2", "role"]}),
    ]
    filter_horizontal = ()

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Only a superuser may grant or remove superuser status."""
        fields = list(super().get_readonly_fields(request, obj))
        return fields if is_superuser(request) else [*fields, "is_superuser"]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may(request.user, MANAGE_USERS)

    def has_view_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return may(request.user, MANAGE_USERS)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return may(request.user, MANAGE_USERS)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only superusers may change a superuser: whoever sets the password owns the account."""
        is_protected = obj is not None and obj.is_superuser and not is_superuser(request)
        return may(request.user, MANAGE_USERS) and not is_protected

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Jobs refer to their creator: deactivate users instead."""
        return False


def is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))


# knox registers its token model itself.
if admin.site.is_registered(PersonToken):
    admin.site.unregister(PersonToken)


@admin.register(PersonToken)
class PersonTokenAdmin(ReadOnlyAdmin):
    reads = Role.ADMIN
    list_display = ["label", "user", "created", "last_used_at"]
    list_select_related = ["user"]
    list_filter = ["created", "last_used_at"]
    search_fields = ["label", "user__username"]
    date_hierarchy = "created"
    fields = ["label", "user", "created", "last_used_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Deleting a token revokes it."""
        return may(request.user, self.changes)


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    reads = Role.ADMIN
    list_display = ["action_time", "user", "content_type", "object_repr", "action_flag"]
    list_select_related = ["user", "content_type"]
    list_filter = ["action_flag", "content_type"]
    search_fields = ["object_repr", "change_message", "user__username"]
    date_hierarchy = "action_time"
