"""REST resource: API tokens of people."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from webapp.accounts.access import MANAGE_TOKENS_OF_OTHERS, may
from webapp.accounts.models import PersonToken, Role, create_token
from webapp.api.base import Resource, StrictSerializer, person


class TokenSerializer(serializers.ModelSerializer[PersonToken]):
    id = serializers.UUIDField(source="public_id", read_only=True)
    user = serializers.CharField(source="user.username", read_only=True)
    created_at = serializers.DateTimeField(source="created", read_only=True)

    class Meta:
        model = PersonToken
        fields = ["id", "label", "user", "created_at", "last_used_at"]
        read_only_fields = fields


class NewToken(StrictSerializer):
    label = serializers.CharField(  # type: ignore[assignment]
        max_length=100, help_text="purpose of the token"
    )


class TokenCreated(TokenSerializer):
    token = serializers.CharField(help_text="shown only once")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]
        read_only_fields = fields


class TokenFilter(django_filters.FilterSet):  # type: ignore[misc]
    user = django_filters.CharFilter(field_name="user__username", label="name of a person")
    label = django_filters.CharFilter(lookup_expr="icontains", label="part of the label")


class Tokens(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, Resource):
    """The caller's tokens; for admins all tokens. Deleting one revokes it at once."""

    queryset = PersonToken.objects.none()
    serializer_class = TokenSerializer
    filterset_class = TokenFilter
    lookup_field = "public_id"
    lookup_url_kwarg = "id"
    lookup_value_converter = "uuid"
    roles = dict.fromkeys(["list", "retrieve", "create", "destroy"], Role.VIEWER)

    def get_queryset(self) -> QuerySet[PersonToken]:
        rows: QuerySet[PersonToken] = PersonToken.objects.select_related("user")
        if may(self.request.user, MANAGE_TOKENS_OF_OTHERS):
            return rows
        return rows.filter(user_id=self.request.user.pk)

    @extend_schema(request=NewToken, responses={201: TokenCreated})
    def create(self, request: Request, **_: Any) -> Response:
        """Create a token for the caller. Only this answer contains it."""
        new = NewToken(data=request.data)
        new.is_valid(raise_exception=True)
        row, secret = create_token(person(request), new.validated_data["label"])
        row.token = secret
        return Response(TokenCreated(row).data, status=201)
