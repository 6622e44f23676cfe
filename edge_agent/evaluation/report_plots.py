"""The report's plots as inline SVG: lengths in percent and text in pixels, so they read the same on a phone.

Colours come from the page's style sheet by class, for light and dark. Everything from outside is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

ROW_PX = 62
STRIP_PX = 58
STAGE_PX = 46
AXIS_PX = 26
CURVE_PX, CURVE_TOP_PX = 240, 18


def percent_text(share: float | None, digits: int = 1) -> str:
    """Return a share (0 to 1) as a percentage, or a dash for none."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def seconds_text(seconds: float | None) -> str:
    """Return a duration in the unit people would use, or a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def success_plot(engines: Sequence[Mapping[str, Any]]) -> Markup:
    """Return task success by engine as bars with 95 % interval marks; `engines` as in the report."""
    parts = []
    for index, engine in enumerate(engines):
        share, top = engine["shares"]["task_success"], index * ROW_PX
        if share["share"] is None:
            continue
        interval = f"{100 * share['low']:.1f} to {100 * share['high']:.1f}"
        parts.append(_row_text(top + 16, engine["label"], percent_text(share["share"]), interval))
        parts.append(_rect("track", top + 27, 100, 16))
        parts.append(_rect(f"bar {engine['role']}", top + 27, 100 * share["share"], 16))
        low, high = 100 * share["low"], 100 * share["high"]
        for css in ("halo", "whisker"):  # the halo keeps the mark readable on the bar
            parts.append(_line(css, low, top + 35, high, top + 35))
            parts += [_line(css, end, top + 30, end, top + 40) for end in (low, high)]
    bottom = len(engines) * ROW_PX
    axis = _axis(bottom, [(mark, f"{mark} %") for mark in (0, 25, 50, 75, 100)])
    return _svg(bottom + AXIS_PX, "Task success by engine with 95 % intervals", [*parts, *axis])


def latency_plot(engines: Sequence[Mapping[str, Any]]) -> Markup:
    """Return each timed turn as a mark on a common axis, with median and 95th percentile, by engine."""
    timed = [engine for engine in engines if engine["latency"]]
    longest = max((engine["latency"]["seconds"][-1] for engine in timed), default=1.0)
    step = _nice_step(longest / 4)
    end = step * math.ceil(longest / step + 1e-9)
    parts = []
    for index, engine in enumerate(timed):
        latency, top = engine["latency"], index * STRIP_PX
        median, p95 = latency["turn_s"]["median"], latency["turn_s"]["p95"]
        text = f"median, p95 {seconds_text(p95)}"
        parts.append(_row_text(top + 16, engine["label"], seconds_text(median), text))
        parts.append(_rect("track", top + 27, 100, 20))
        for seconds in latency["seconds"]:
            place = 100 * seconds / end
            parts.append(_line(f"turn {engine['role']}", place, top + 29, place, top + 45))
        parts.append(_line(f"median {engine['role']}", 100 * median / end, top + 24, 100 * median / end, top + 50))
        parts.append(_line("whisker", 100 * p95 / end, top + 27, 100 * p95 / end, top + 47))
    bottom = len(timed) * STRIP_PX
    count = round(end / step)
    marks = [(100 * index / count, f"{index * step:g} s") for index in range(count + 1)]
    return _svg(bottom + AXIS_PX, "Seconds per turn by engine", [*parts, *_axis(bottom, marks)])


def _nice_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-6)))
    return float(next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough))


def stage_plot(stage_times_s: Mapping[str, float]) -> Markup:
    """Return the time of each stage, in the order given, as bars."""
    longest, whole = max(stage_times_s.values(), default=0) or 1.0, sum(stage_times_s.values()) or 1.0
    parts = []
    for index, (stage, seconds) in enumerate(stage_times_s.items()):
        top = index * STAGE_PX
        parts.append(_row_text(top + 16, stage, seconds_text(seconds), percent_text(seconds / whole, 0)))
        parts.append(_rect("track", top + 25, 100, 8))
        parts.append(_rect("bar stage", top + 25, 100 * seconds / longest, 8))
    return _svg(len(stage_times_s) * STAGE_PX, "Time per stage", parts)


def risk_plot(curve: Sequence[Mapping[str, Any]]) -> Markup:
    """Return the share that is wrong against the share done without asking, as steps; `curve` as in own_report.py."""
    most = max([one["wrong"]["share"] for one in curve], default=0.0)
    step = _nice_step(most / 3 or 0.01)
    end = step * math.ceil(most / step + 1e-9) or step
    marks = [(step * count / end, f"{100 * step * count:g} %") for count in range(round(end / step) + 1)]
    parts, before = _grid(marks), None
    for one in curve:
        place = 100 * one["coverage"], _height(one["wrong"]["share"] / end)
        if before:
            parts.append(_line("curve", *before, *place))
        before = place
    parts += _axis(CURVE_PX + 8, [(mark, f"{mark} %") for mark in (0, 25, 50, 75, 100)])
    return _svg(CURVE_PX + 8 + AXIS_PX, "Wrong actions against actions done without asking", parts)


def reliability_plot(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Return how many were right against how many should have been, with 95 % intervals; on the diagonal both agree."""
    parts = _grid([(mark / 100, f"{mark} %") for mark in (0, 25, 50, 75, 100)])
    parts.append(_line("diagonal", 0, _height(0), 100, _height(1)))
    for one in bins:
        x, right = 100 * one["predicted"], one["right"]
        parts.append(_line("whisker", x, _height(right["low"]), x, _height(right["high"])))
        parts.append(f'<circle class="point" cx="{x:.2f}%" cy="{_height(right["share"])}" r="5"/>')
    parts += _axis(CURVE_PX + 8, [(mark, f"{mark} %") for mark in (0, 25, 50, 75, 100)])
    return _svg(CURVE_PX + 8 + AXIS_PX, "How many were right against how many should have been", parts)


def _grid(marks: Sequence[tuple[float, str]]) -> list[str]:
    parts = []
    for share, text in marks:
        parts.append(_line("grid", 0, _height(share), 100, _height(share)))
        parts.append(f'<text class="axis" x="0" y="{_height(share) - 4}">{escape(text)}</text>')
    return parts


def _height(share: float) -> int:
    """Return where a share (0 to 1) is, in pixels from the top."""
    return round(CURVE_TOP_PX + (1 - share) * (CURVE_PX - CURVE_TOP_PX))


def _svg(height_px: int, title: str, parts: Sequence[str]) -> Markup:
    head = f'<svg class="plot" role="img" width="100%" height="{height_px}"><title>{escape(title)}</title>'
    # The makers of the parts escape whatever is from outside.
    return Markup("".join([head, *parts, "</svg>"]))  # noqa: S704


def _row_text(y: int, label: str, value: str, detail: str) -> str:
    return (
        f'<text class="label" x="0" y="{y}">{escape(label)}</text><text class="value" x="100%" y="{y}">'
        f'{escape(value)}<tspan class="detail" dx="9">{escape(detail)}</tspan></text>'
    )


def _rect(css: str, y: int, width: float, height: int) -> str:
    return f'<rect class="{escape(css)}" x="0" y="{y}" width="{width:.2f}%" height="{height}" rx="3"/>'


def _line(css: str, x1: float, y1: int, x2: float, y2: int) -> str:
    return f'<line class="{escape(css)}" x1="{x1:.2f}%" y1="{y1}" x2="{x2:.2f}%" y2="{y2}"/>'


def _axis(y: int, marks: Sequence[tuple[float, str]]) -> list[str]:
    parts = []
    for place, text in marks:
        side = "start" if place == 0 else "end" if place == 100 else "middle"
        parts.append(_line("tick", place, y - 4, place, y + 2))
        parts.append(f'<text class="axis" x="{place:.2f}%" y="{y + 18}" text-anchor="{side}">{escape(text)}</text>')
    return parts
