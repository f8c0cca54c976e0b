"""REST resource: users. Admins manage all; everybody can read and change themselves."""

from __future__ import annotations

from typing import Any

import django_filters
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from fedcore.errors import Fault
from webapp.accounts.access import MANAGE_USERS
from webapp.accounts.models import Role, User
from webapp.api.base import Resource, StrictSerializer, person
from webapp.api.problems import Conflict, Faulty
from webapp.common.address_limits import PASSWORD_LIMIT

PROFILE_FIELDS = ["first_name", "last_name", "email"]


class UserSerializer(serializers.ModelSerializer[User]):
    # A format check would refuse an empty address.
    email = serializers.CharField(read_only=True)

    class Meta:
        model = User
        fields = ["id", "username", *PROFILE_FIELDS, "role", "is_active", "is_superuser"]
        fields += ["last_login", "date_joined"]
        read_only_fields = fields


class UserChange(StrictSerializer, serializers.ModelSerializer[User]):
    password = serializers.CharField(write_only=True, required=False, max_length=256)

    class Meta:
        model = User
        fields = [*PROFILE_FIELDS, "role", "is_active", "password"]


class NewUser(UserChange):
    class Meta(UserChange.Meta):
        fields = ["username", *UserChange.Meta.fields]
        extra_kwargs = {"password": {"required": True}}


class OwnChange(StrictSerializer, serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = PROFILE_FIELDS


class PasswordChange(StrictSerializer):
    old_password = serializers.CharField(max_length=256)
    new_password = serializers.CharField(max_length=256)


class UserFilter(django_filters.FilterSet):  # type: ignore[misc]
    username = django_filters.CharFilter(lookup_expr="icontains", label="part of the name")
    role = django_filters.ChoiceFilter(choices=Role.choices)
    is_active = django_filters.BooleanFilter()
    ordering = django_filters.OrderingFilter(fields=["username", "date_joined", "last_login"])


class Users(mixins.ListModelMixin, mixins.RetrieveModelMixin, Resource):
    """Users. They are deactivated (`is_active`), never deleted: jobs refer to them."""

    queryset = User.objects.order_by("username")
    serializer_class = UserSerializer
    filterset_class = UserFilter
    lookup_value_converter = "int"
    roles = dict.fromkeys(["list", "retrieve", "create", "partial_update"], MANAGE_USERS)

    @extend_schema(request=NewUser, responses={201: UserSerializer})
    def create(self, request: Request, **_: Any) -> Response:
        """Create a user."""
        new = NewUser(data=request.data)
        new.is_valid(raise_exception=True)
        values = dict(new.validated_data)
        password = values.pop("password", None)
        user = User(**values)
        set_password(user, password, "password")
        user.save()
        return Response(UserSerializer(user).data, status=201)

    @extend_schema(request=UserChange, responses=UserSerializer)
    def partial_update(self, request: Request, **_: Any) -> Response:
        """Change role, name, password, or whether the user may log in."""
        user = self.get_object()
        change = UserChange(user, data=request.data, partial=True)
        change.is_valid(raise_exception=True)
        values = dict(change.validated_data)
        check_power(person(request), user, values)
        if "password" in values:
            set_password(user, values.pop("password"), "password")
        for name, value in values.items():
            setattr(user, name, value)
        user.save()
        return Response(UserSerializer(user).data)


class Me(Resource):
    """The caller."""

    serializer_class = UserSerializer
    pagination_class = None
    filter_backends = []
    roles = dict.fromkeys(["retrieve", "partial_update", "password"], Role.VIEWER)

    @extend_schema(responses=UserSerializer)
    def retrieve(self, request: Request) -> Response:
        """The caller's name, role and last login."""
        return Response(UserSerializer(person(request)).data)

    @extend_schema(request=OwnChange, responses=UserSerializer)
    def partial_update(self, request: Request) -> Response:
        """Change the caller's name and address."""
        change = OwnChange(person(request), data=request.data, partial=True)
        change.is_valid(raise_exception=True)
        return Response(UserSerializer(change.save()).data)

    @extend_schema(request=PasswordChange, responses={204: None})
    def password(self, request: Request) -> Response:
        """Change the caller's password. Tokens and this session stay valid."""
        change = PasswordChange(data=request.data)
        change.is_valid(raise_exception=True)
        user = person(request)
        PASSWORD_LIMIT.take(request)
        if not user.check_password(change.validated_data["old_password"]):
            raise Faulty([Fault("old_password", "this is not the current password")])
        PASSWORD_LIMIT.give_back(request)
        set_password(user, change.validated_data["new_password"], "new_password")
        user.save()
        update_session_auth_hash(request._request, user)
        return Response(status=204)


def set_password(user: User, password: str | None, path: str) -> None:
    """Set a password. All violated rules are reported together."""
    try:
        validate_password(password or "", user)
    except ValidationError as error:
        raise Faulty([Fault(path, message) for message in error.messages]) from error
    user.set_password(password)


def check_power(actor: User, user: User, values: dict[str, Any]) -> None:
    """Only superusers may change superusers, and nobody may demote or deactivate themselves."""
    if user.is_superuser and not actor.is_superuser:
        raise PermissionDenied("only a superuser may change a superuser")
    demoted = values.get("role", user.role) != user.role or not values.get("is_active", True)
    if user == actor and demoted:
        raise Conflict("ask another admin to change your role or deactivate you")
