"""Empties the database between tests that commit.

Django's flush empties every table and then writes content types and permissions anew, which takes
longer than many of these tests. Here only tables that hold rows are touched, and those two stay.
"""

from __future__ import annotations

from functools import cache

from django.db import connection, transaction

CONSTANT = {"django_migrations", "django_content_type", "auth_permission"}


@cache
def _tables() -> list[str]:
    return sorted(set(connection.introspection.table_names()) - CONSTANT)


def empty_tables() -> None:
    quoted = {name: connection.ops.quote_name(name) for name in _tables()}
    probes = [f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {quoted[name]})" for name in quoted]
    # Foreign keys are checked at the commit, so the order of the tables does not matter.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(probes))
        for (name,) in cursor.fetchall():
            cursor.execute(f"DELETE FROM {quoted[name]}")
