"""Devices, their data, credentials and enrolments in the Django admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from webapp.accounts.access import EDIT_DEVICE, ENROL, REVOKE_DEVICE, may
from webapp.accounts.admin import ReadOnlyAdmin, RoleAdmin
from webapp.accounts.models import Role, User
from webapp.devices.models import Credential, Dataset, Device, Enrolment
from webapp.jobs.lifecycle import enrolment


class DatasetInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Dataset
    extra = 0
    can_delete = False
    readonly_fields = ["name", "domain", "examples", "size_bytes", "columns"]
    fields = (*readonly_fields,)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Role.VIEWER)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Device)
class DeviceAdmin(RoleAdmin):
    changes = EDIT_DEVICE
    list_display = ["name", "role", "presence", "ability", "kind", "agent_version", "last_seen_at"]
    list_filter = ["role", ("revoked_at", admin.EmptyFieldListFilter), "last_seen_at"]
    search_fields = ["name", "datasets__name", "datasets__domain"]
    date_hierarchy = "created_at"
    readonly_fields = [
        "presence",
        "ability",
        "activity",
        "profile",
        "agent_version",
        "boot_id",
        "last_seen_at",
        "last_sample_seq",
        "revoked_at",
        "created_at",
    ]
    fields = ("name", "role", *readonly_fields)
    inlines = [DatasetInline]
    actions = ["revoke"]

    @admin.display(description="hardware")
    def kind(self, device: Device) -> str:
        return str(device.profile.get("kind", ""))

    @admin.action(description="Revoke selected devices", permissions=["revoke"])
    def revoke(self, request: HttpRequest, devices: QuerySet[Device]) -> None:
        user = request.user if isinstance(request.user, User) else None
        for device in devices:
            if device.revoked_at is not None:
                self.message_user(request, f"{device} has been revoked already", messages.WARNING)
                continue
            enrolment.revoke(device, user)
            self.message_user(request, f"{device} was revoked", messages.SUCCESS)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return may(request.user, REVOKE_DEVICE)


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyAdmin):
    list_display = ["name", "device", "domain", "examples", "size_bytes"]
    list_select_related = ["device"]
    list_filter = ["domain"]
    search_fields = ["name", "domain", "device__name"]


@admin.register(Credential)
class CredentialAdmin(ReadOnlyAdmin):
    """The hashes are hidden; revoke the device to remove its credential."""

    reads = Role.ADMIN
    list_display = ["device", "created_at", "last_used_at"]
    list_select_related = ["device"]
    list_filter = ["created_at", "last_used_at"]
    search_fields = ["device__name"]
    date_hierarchy = "created_at"
    fields = ["device", "created_at", "last_used_at"]


@admin.register(Enrolment)
class EnrolmentAdmin(ReadOnlyAdmin):
    list_display = ["id", "name", "role", "state", "device", "created_by", "expires_at", "used_at"]
    list_select_related = ["device", "created_by"]
    list_filter = ["role", ("used_at", admin.EmptyFieldListFilter), "expires_at"]
    search_fields = ["name", "device__name", "created_by__username"]
    date_hierarchy = "created_at"
    fields = [
        "name",
        "role",
        "state",
        "device",
        "created_by",
        "created_at",
        "expires_at",
        "used_at",
    ]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Deleting a waiting enrolment withdraws its token."""
        return may(request.user, ENROL)
