"""Devices, the datasets they report, their credentials and enrolments."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone

from fedcore.formats.line_messages import POLL_S
from webapp.devices.ability import Reason, ability


class DeviceRole(models.TextChoices):
    TRAINER = "trainer", "trainer"
    AGGREGATOR = "aggregator", "aggregator"
    BOTH = "both", "trainer and aggregator"


class LineChannel(models.TextChoices):
    """How a device's newest line came."""

    WEBSOCKET = "websocket", "WebSocket"
    POLL = "poll", "long poll"


def hashed(secret: str) -> str:
    """SHA-256 of a random 256-bit secret, as stored; such a secret needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    return secrets.token_urlsafe(32)


ABILITY_COLUMNS = (
    "last_seen_at",
    "disconnected_at",
    "line_channel",
    "health",
    "agents_alternated_at",
    "agent_refused_at",
    "agent_refusal",
)


class Device(models.Model):
    """A machine. ``profile`` describes its hardware (docs/reference/protocol.md)."""

    name = models.CharField(max_length=100, unique=True)
    role = models.CharField(max_length=12, choices=DeviceRole.choices, default=DeviceRole.TRAINER)
    profile = models.JSONField(default=dict, blank=True)
    agent_version = models.CharField(max_length=40, blank=True)
    boot_id = models.CharField(max_length=64, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True, db_index=True)
    # The newest line of the device: frames of an older epoch are void (webapp.line).
    line_epoch = models.BigIntegerField(default=0)
    line_channel = models.CharField(
        max_length=10, choices=LineChannel.choices, default=LineChannel.WEBSOCKET
    )
    # When the newest line ended; None while it is open.
    disconnected_at = models.DateTimeField(null=True, blank=True)
    previous_boot_id = models.CharField(max_length=64, blank=True)
    # As the device reported it (fedcore.formats.line_bodies.HealthBody).
    health = models.JSONField(default=dict, blank=True)
    # When two agents with this credential last replaced each other (webapp.devices.ability).
    agents_alternated_at = models.DateTimeField(null=True, blank=True)
    # When an agent was last refused for its version, and whether it is too old or too new.
    agent_refused_at = models.DateTimeField(null=True, blank=True)
    agent_refusal = models.CharField(max_length=10, blank=True)
    last_sample_seq = models.BigIntegerField(default=0)
    activity = models.JSONField(default=dict, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @staticmethod
    def for_presence() -> models.QuerySet[Device]:
        """All devices, with the columns that ``presence`` and ``ability`` need."""
        return Device.objects.only("id", "name", "revoked_at", "activity", *ABILITY_COLUMNS)

    @staticmethod
    def online() -> models.QuerySet[Device]:
        """Connected devices: the line is open, and was heard of within ``silence_s``."""
        now, fresh = timezone.now(), models.Q()
        for channel in LineChannel:
            since = now - timedelta(seconds=silence_s(channel))
            fresh |= models.Q(line_channel=channel, last_seen_at__gt=since)
        return Device.objects.filter(fresh, revoked_at=None, disconnected_at=None)

    @property
    def is_online(self) -> bool:
        """Whether it is connected; ``online`` is the same as a query."""
        if self.revoked_at or self.disconnected_at or self.last_seen_at is None:
            return False
        longest = timedelta(seconds=silence_s(self.line_channel))
        return timezone.now() - self.last_seen_at < longest

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

    @property
    def ability(self) -> Reason | None:
        """Why it gets no work, or what to mend on it; None where there is nothing to say."""
        return ability(self)

    @property
    def is_unable(self) -> bool:
        """Whether it gets no work for a reason that somebody can mend."""
        reason = ability(self)
        return reason is not None and reason.blocks

    @property
    def can_work(self) -> bool:
        """Whether it is connected and able: only then it is chosen for work."""
        return self.is_online and not self.is_unable


def silence_s(channel: str) -> float:
    """Seconds without a sign of life after which a device counts as offline.

    A line by long poll has no pings: it lives as long as the device polls.
    """
    return 2 * POLL_S if channel == LineChannel.POLL else settings.OFFLINE_AFTER_S


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
    """API token of a device; replaced when the device enrols again."""

    device = models.OneToOneField(Device, on_delete=models.CASCADE, related_name="credential")
    token_hash = models.CharField(max_length=64, unique=True)
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
