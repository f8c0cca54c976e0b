"""Devices, the datasets they report, their credentials and enrolments."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone


class DeviceRole(models.TextChoices):
    TRAINER = "trainer", "trainer"
    AGGREGATOR = "aggregator", "aggregator"
    BOTH = "both", "trainer and aggregator"


def hashed(secret: str) -> str:
    """SHA-256 of a random 256-bit secret, as stored; such a secret needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    return secrets.token_urlsafe(32)


class Device(models.Model):
    """A machine. ``profile`` describes its hardware (docs/reference/protocol.md)."""

    name = models.CharField(max_length=100, unique=True)
    role = models.CharField(max_length=12, choices=DeviceRole.choices, default=DeviceRole.TRAINER)
    profile = models.JSONField(default=dict, blank=True)
    agent_version = models.CharField(max_length=40, blank=True)
    boot_id = models.CharField(max_length=64, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True, db_index=True)
    last_sample_seq = models.BigIntegerField(default=0)
    activity = models.JSONField(default=dict, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_online(self) -> bool:
        """Whether it called within OFFLINE_AFTER_S."""
        if self.revoked_at is not None or self.last_seen_at is None:
            return False
        return timezone.now() - self.last_seen_at < timedelta(seconds=settings.OFFLINE_AFTER_S)

    @property
    def presence(self) -> str:
        """One of revoked, never seen, offline, busy, online."""
        if self.revoked_at is not None:
            return "revoked"
        if self.last_seen_at is None:
            return "never seen"
        if not self.is_online:
            return "offline"
        return "busy" if self.activity.get("assignment") else "online"


class Dataset(models.Model):
    """A dataset that a device reports: sizes only, never text."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=100)
    domain = models.CharField(max_length=100, blank=True)
    examples = models.PositiveIntegerField()
    size_bytes = models.BigIntegerField(default=0)
    columns = models.JSONField(default=list, blank=True)

    class Meta:
        ordering = ["device_id", "id"]
        constraints = [
            models.UniqueConstraint(fields=["device", "name"], name="dataset_name_on_device")
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.device}"


class Credential(models.Model):
    """API token and broker user of a device; replaced when the device enrols again."""

    device = models.OneToOneField(Device, on_delete=models.CASCADE, related_name="credential")
    token_hash = models.CharField(max_length=64, unique=True)
    broker_user = models.CharField(max_length=100, unique=True)
    # A broker that restarts without its ACL file loses its users: reconcile recreates them from
    # this hash (SHA-256 of a random 256-bit password, the form Redis itself stores).
    broker_password_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"credential of {self.device}"


class Enrolment(models.Model):
    """A one-time token to enrol one machine. Only its hash is stored."""

    token_hash = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=100, blank=True)
    role = models.CharField(max_length=12, choices=DeviceRole.choices, default=DeviceRole.TRAINER)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    device = models.ForeignKey(
        Device, on_delete=models.SET_NULL, null=True, blank=True, related_name="enrolments"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"enrolment {self.pk} ({self.state})"

    @property
    def state(self) -> str:
        """One of used, expired, waiting."""
        if self.used_at is not None:
            return "used"
        return "expired" if self.expires_at <= timezone.now() else "waiting"
