"""Rows as a CSV file that a spreadsheet opens without running anything in it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from django.http import HttpResponse

# A cell that begins so is a formula to a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated, CRLF, empty where a value is None."""
    out = io.StringIO()
    csv.writer(out).writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def csv_response(rows: Iterable[Sequence[object]], name: str) -> HttpResponse:
    """The file as a download; ``name`` without ending, made safe for every system."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "export"
    made = HttpResponse(csv_text(rows), content_type="text/csv; charset=utf-8")
    made["Content-Disposition"] = f'attachment; filename="{safe}.csv"'
    return made
