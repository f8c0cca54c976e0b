"""Template tags: numbers with units, relative times, states, icons, bars and sparklines.

Bars and sparklines are SVG, since the content security policy forbids style attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django import template
from django.forms import BoundField, Select
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from webapp.common import units
from webapp.devices.models import Device
from webapp.jobs.lifecycle import site_state
from webapp.pages.icons import ICONS
from webapp.pages.jobs.forms import OptionField

register = template.Library()

# Colour of a state; its word always stands beside it.
TONES = {
    "online": "good",
    "busy": "live",
    "offline": "idle",
    "never seen": "idle",
    "revoked": "idle",
    "draft": "idle",
    "queued": "wait",
    "not asked": "idle",
    "gone": "idle",
    "running": "live",
    "paused": "wait",
    "completed": "good",
    "failed": "bad",
    "cancelled": "idle",
    "waiting": "wait",
    "used": "good",
    "expired": "idle",
    "refused": "bad",
    "closed": "good",
    "folded": "good",
    "reported": "good",
    "training": "live",
    "uploading": "live",
}
# States whose name in the database is not the word on the page.
LABELS = {"not asked": "not selected", "reported": "received", "folded": "merged"}


@register.filter
def si(value: object, unit: str = "") -> str:
    return units.si(units.number(value), unit)


@register.filter
def size(value: object) -> str:
    return units.size(units.number(value))


@register.filter
def percent(share: object) -> str:
    return units.percent(units.number(share))


@register.filter
def duration(seconds: object) -> str:
    return units.duration(units.number(seconds))


@register.simple_tag
def ago(at: datetime | None) -> str | SafeString:
    """A relative time, updated by the page, with the exact time on hover."""
    if at is None:
        return "never"
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>', at.isoformat(), exact, units.ago(at)
    )


@register.simple_tag
def state(word: str, label: str = "") -> SafeString:
    """Dot and word."""
    tone, text = TONES.get(word, "idle"), label or LABELS.get(word, word)
    return format_html('<span class="state" data-tone="{}">{}</span>', tone, text)


@register.simple_tag
def device_state(device: Device) -> SafeString:
    """Dot and word of a device's presence; amber where it is connected and cannot work."""
    unable = device.is_online and device.is_unable
    tone = "wait" if unable else TONES.get(device.presence, "idle")
    return format_html('<span class="state" data-tone="{}">{}</span>', tone, device.presence)


@register.simple_tag
def site_faults() -> list[str]:
    """What the site itself lacks, in words."""
    return [fault.text for fault in site_state.site_faults()]


@register.simple_tag
def device_checks(field: OptionField) -> SafeString:
    """A checkbox per device; joined here, since a template is slow for a thousand of them."""
    rows = (
        (
            *(field.name, choice.value, " checked" if choice.chosen else ""),
            *(choice.label, choice.note, TONES.get(choice.state, "idle"), choice.state),
        )
        for choice in field.choices
    )
    row = (
        '<label class="check"><input type="checkbox" name="{0}" value="{1}"{2}>{3} '
        '<span class="state" data-tone="{5}">{6}</span><small>{4}</small></label>'
    )
    return format_html_join("", row, rows)


@register.simple_tag
def icon(name: str) -> SafeString:
    return format_html(
        '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">'
        '<path d="{}"/></svg>',
        ICONS[name],
    )


@register.simple_tag
def bar(share: float | None, source: str, line: float | None = None) -> SafeString:
    """A bar of ``share`` of the width, coloured by its source; ``line`` marks the reference."""
    length = "0" if share is None else f"{max(0.5, 100 * min(1.0, share)):.1f}"
    mark = SafeString("")
    if line is not None:
        x = f"{min(99.6, max(0.4, 100 * line)):.1f}"
        mark = format_html('<line x1="{0}" x2="{0}" y1="0" y2="10"/>', x)
    return format_html(
        '<svg class="value-bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" y="2" width="100" height="6"/>'
        '<rect data-source="{}" y="2" width="{}" height="6"/>{}</svg>',
        source,
        length,
        mark,
    )


@register.simple_tag
def sparkline(values: Sequence[float], label: str, width: int = 96, height: int = 24) -> SafeString:
    """A line through the values; a single value is a dot."""
    if not values:
        return format_html('<span class="faint">{}</span>', units.NONE)
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    step = (width - 6) / max(1, len(values) - 1)
    points = [
        (3 + i * step, 3 + (height - 6) * (1 - (v - low) / span)) for i, v in enumerate(values)
    ]
    x, y = points[-1]
    return format_html(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'aria-label="{label}"><polyline points="{points}"/><circle cx="{x}" cy="{y}" r="2"/></svg>',
        w=width,
        h=height,
        label=label,
        points=" ".join(f"{a:.1f},{b:.1f}" for a, b in points),
        x=f"{x:.1f}",
        y=f"{y:.1f}",
    )


@register.simple_tag
def gain(now: float | None, before: float | None) -> str | SafeString:
    """Change of a score since the start, in points."""
    if now is None or before is None or now == before:
        return units.NONE
    points = now - before
    tone = "gain" if points > 0 else "faint"
    return format_html('<span class="{}">{}</span>', tone, f"{points:+.1f}".replace("-", "\u2212"))


@register.simple_tag
def field_widget(field: BoundField) -> SafeString:
    """The widget of a form field with its CSS class, linked to its help text and errors."""
    widget = field.field.widget
    ids = [f"{field.id_for_label}_helptext"] if field.help_text else []
    ids += [f"{field.id_for_label}_error"] if field.errors else []
    attrs: dict[str, str | bool] = {"class": "select" if isinstance(widget, Select) else "input"}
    if ids:
        attrs["aria-describedby"] = " ".join(ids)
    if field.errors:
        attrs["aria-invalid"] = "true"
    return field.as_widget(attrs=attrs)
