"""CSV files whose cells a spreadsheet does not run as formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from django.http import HttpResponse

# A spreadsheet takes a cell with such a first character for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated, CRLF; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in rows:
        cells: list[object] = []
        for value in row:
            is_formula = isinstance(value, str) and value.startswith(FORMULA)
            cells.append("" if value is None else f"'{value}" if is_formula else value)
        writer.writerow(cells)
    return out.getvalue()


def csv_response(rows: Iterable[Sequence[object]], name: str) -> HttpResponse:
    """The file as a download. ``name``: without extension; made safe for every system."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "export"
    response = HttpResponse(csv_text(rows), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{safe}.csv"'
    return response
