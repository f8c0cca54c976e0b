"""Tables of a family whose members each have a module of their own.

A family is one enum, such as ``AdapterKind``. Where a layer gives each member a module, its table
maps the member to the ``ROW`` of that module: a new member is one more module, and no table names
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from importlib import import_module
from typing import TypeVar


class MemberName(str, Enum):
    """The name of a family's member: a string, like ``StrEnum``, which Python 3.10 lacks."""

    __str__ = str.__str__


Member = TypeVar("Member", bound="MemberName")
Row = TypeVar("Row")


def member_rows(members: Iterable[Member], modules: str, row: type[Row]) -> Mapping[Member, Row]:
    """The ``ROW`` of every member's module; ``modules`` is its dotted name with {} for the member.

    Raises ImportError for a member without a module, AttributeError for a module without a row,
    TypeError for a row that is no ``row``.
    """
    rows: dict[Member, Row] = {}
    for member in members:
        value = import_module(modules.format(member.value)).ROW
        if not isinstance(value, row):
            raise TypeError(f"the ROW of {modules.format(member.value)} is no {row.__name__}")
        rows[member] = value
    return rows
