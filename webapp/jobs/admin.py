"""Jobs, rounds, assignments, artefacts and events in the Django admin: read, and steer jobs."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from webapp.accounts.access import MOVE_JOB, may
from webapp.accounts.admin import ReadOnlyAdmin
from webapp.accounts.models import Role, User
from webapp.jobs.lifecycle.services import PAST_TENSE, MoveRefused, move
from webapp.jobs.models import (
    Artefact,
    Assignment,
    Event,
    FoldPlan,
    FoldShard,
    Job,
    Participant,
    Round,
    Watch,
)


class ParticipantInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Participant
    extra = 0
    readonly_fields = ["slot", "device", "dataset", "examples"]
    fields = (*readonly_fields,)
    can_delete = False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may(request.user, Role.VIEWER)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Participant]:
        return super().get_queryset(request).select_related("device", "job")


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    list_display = ["name", "phase", "base", "rounds", "reason", "created_by", "created_at"]
    list_display += ["started_at", "ended_at"]
    list_select_related = ["created_by"]
    list_filter = ["phase", "created_by"]
    search_fields = ["name", "=id", "reason", "created_by__username"]
    date_hierarchy = "created_at"
    inlines = [ParticipantInline]
    actions = ["pause", "resume", "retry", "cancel"]

    @admin.display(description="model")
    def base(self, job: Job) -> str:
        return str(job.spec.get("model", {}).get("name", ""))

    @admin.display()
    def rounds(self, job: Job) -> int | None:
        number: int | None = job.spec.get("rounds")
        return number

    def has_move_permission(self, request: HttpRequest) -> bool:
        return may(request.user, MOVE_JOB)

    @admin.action(description="Pause selected jobs", permissions=["move"])
    def pause(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        self._move_all(request, jobs, "pause")

    @admin.action(description="Resume selected jobs", permissions=["move"])
    def resume(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        self._move_all(request, jobs, "resume")

    @admin.action(description="Retry selected jobs", permissions=["move"])
    def retry(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        self._move_all(request, jobs, "retry")

    @admin.action(description="Cancel selected jobs", permissions=["move"])
    def cancel(self, request: HttpRequest, jobs: QuerySet[Job]) -> None:
        self._move_all(request, jobs, "cancel")

    def _move_all(self, request: HttpRequest, jobs: QuerySet[Job], name: str) -> None:
        user = request.user if isinstance(request.user, User) else None
        for job in jobs:
            try:
                move(job.pk, name, user)
            except MoveRefused as refusal:
                self.message_user(request, f"{job}: {refusal}", messages.ERROR)
            else:
                self.message_user(request, f"{job}: {PAST_TENSE[name]}", messages.SUCCESS)


@admin.register(Participant)
class ParticipantAdmin(ReadOnlyAdmin):
    list_display = ["job", "slot", "device", "dataset", "examples"]
    list_select_related = ["job", "device"]
    list_filter = ["dataset"]
    search_fields = ["job__name", "device__name", "dataset"]


@admin.register(Round)
class RoundAdmin(ReadOnlyAdmin):
    list_display = ["job", "number", "attempt", "phase", "rouge_l", "reason", "started_at"]
    list_display += ["ended_at"]
    list_select_related = ["job"]
    list_filter = ["phase"]
    search_fields = ["job__name", "=job__id", "reason"]
    date_hierarchy = "created_at"

    @admin.display(description="ROUGE-L")
    def rouge_l(self, row: Round) -> str:
        score = row.evaluation.get("rougeL")
        return f"{score:.1f}" if isinstance(score, (int, float)) else ""


@admin.register(Assignment)
class AssignmentAdmin(ReadOnlyAdmin):
    list_display = ["round", "device", "task", "attempt", "phase", "reason", "examples"]
    list_display += ["bytes_up", "bytes_down", "offered_at", "ended_at"]
    list_select_related = ["round__job", "device"]
    list_filter = ["phase", "task", "device"]
    search_fields = ["=id", "device__name", "round__job__name", "reason"]
    date_hierarchy = "offered_at"


@admin.register(Artefact)
class ArtefactAdmin(ReadOnlyAdmin):
    list_display = ["sha256", "kind", "size_bytes", "origin", "created_at", "removed_at"]
    list_filter = ["kind"]
    search_fields = ["sha256", "origin"]
    date_hierarchy = "created_at"


@admin.register(FoldPlan)
class FoldPlanAdmin(ReadOnlyAdmin):
    list_display = ["round", "created_at"]
    list_select_related = ["round__job"]


@admin.register(FoldShard)
class FoldShardAdmin(ReadOnlyAdmin):
    list_display = ["plan", "start", "stop", "claimed_at", "artefact"]
    list_select_related = ["plan__round__job"]


@admin.register(Watch)
class WatchAdmin(ReadOnlyAdmin):
    list_display = ["looked_at", "back_at"]


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ["at", "level", "text", "job", "device"]
    list_select_related = ["job", "device"]
    list_filter = ["level", "device"]
    search_fields = ["text", "job__name", "device__name"]
    date_hierarchy = "at"
