"""Bars drawn as SVG, since the content policy takes no style of an element."""

from __future__ import annotations

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def bar(share: float | None, source: str, line: float | None = None) -> SafeString:
    """A bar of ``share`` of the width, painted by its source; ``line`` marks the reference."""
    length = "0" if share is None else f"{max(0.5, 100 * min(1.0, share)):.1f}"
    mark = SafeString("")
    if line is not None:
        x = f"{min(99.6, max(0.4, 100 * line)):.1f}"
        mark = format_html('<line x1="{0}" x2="{0}" y1="0" y2="10"/>', x)
    return format_html(
        '<svg class="bar-of" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" y="2" width="100" height="6"/>'
        '<rect data-source="{}" y="2" width="{}" height="6"/>{}</svg>',
        source,
        length,
        mark,
    )
