"""Turn a report (the content of report.json) into one HTML file that opens offline and runs no script.

What the model said is untrusted: the template escapes everything, and the page's own policy forbids scripts and
every outside resource, so that a mistake here still fetches and runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edge_agent.evaluation.evaluation import spread
from edge_agent.evaluation.report_filters import Belongs, Filter, classes_of, filters_of
from edge_agent.evaluation.report_plots import (
    latency_plot,
    percent_text,
    reliability_plot,
    risk_plot,
    seconds_text,
    stage_plot,
    success_plot,
)
from edge_agent.wire.markers import CALL, END_CALL, END_THINK, THINK
from edge_agent.wire.messages import compact_json

TEMPLATE, TURNS_TEMPLATE, OWN_TEMPLATE = "report.html.jinja", "turns.html.jinja", "own_cases.html.jinja"
FAILURES_SHOWN = 100  # of each engine
REPLY_CHARACTERS = 2000
_PIECES = re.compile(
    rf"{re.escape(THINK)}(?P<thought>.*?){re.escape(END_THINK)}|{re.escape(CALL)}(?P<call>.*?){re.escape(END_CALL)}"
    r"|(?P<text>(?:(?!<think>|<tool_call>).)+|.)",
    re.DOTALL,
)


def render_html(report: Mapping[str, Any]) -> str:
    """Return the page of a report: headline, plots, tables, failures, examples, provenance."""
    engines = report["engines"]
    shipped = engines[-1]
    failures, filters = _failures(
        [(engine["label"], engine["failures"]) for engine in engines],
        lambda one: {"kind": [one["kind"].replace("_", " ")], "way": one.get("ways", ())},
    )
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            report=report,
            engines=engines,
            columns=len(engines),
            shipped=shipped,
            gain=_difference(report, "tuned", ("base",)),
            loss=_difference(report, shipped["role"], ("tuned", "f16"), to=shipped["label"]),
            base=next((engine for engine in engines if engine["role"] == "base"), None),
            success_plot=success_plot(engines),
            latency_plot=latency_plot(engines) if any(engine["latency"] for engine in engines) else "",
            stage_plot=stage_plot(report["stage_times_s"]) if report["stage_times_s"] else "",
            failures=failures,
            failed=[(engine["label"], len(engine["failures"])) for engine in engines],
            filters=filters,
            shown=FAILURES_SHOWN,
        )
    )


def render_turns(report: Mapping[str, Any], metrics: Sequence[tuple[str, str]]) -> str:
    """Return the page of a strict evaluation. Args: metrics: names and titles, in the order of the table."""
    failed = [
        (model["label"], [one for one in model["constrained"]["replies"] if not one["is_good"]])
        for model in report["models"]
    ]
    failures, filters = _failures(failed, lambda one: {"kind": [one["kind"]], "way": one["ways"]})
    return (
        _environment()
        .get_template(TURNS_TEMPLATE)
        .render(
            report=report,
            metrics=metrics,
            columns=0,
            filters=filters,
            failures=failures,
            failed=[(label, len(replies)) for label, replies in failed],
            shown=FAILURES_SHOWN,
        )
    )


def render_own_cases(report: Mapping[str, Any]) -> str:
    """Return the page of an evaluation on cases that a person wrote; `report` as own_report.py makes it."""
    missed = [(model["label"], [one for one in model["turns"] if one["problems"]]) for model in report["models"]]
    failures, filters = _failures(missed, lambda one: {"kind": [one["kind"] or "request"], "way": one["ways"]})
    plots = [(risk_plot(one["confidence"]["curve"]), reliability_plot(one["confidence"]["bins"])) if one["confidence"]
             else None for one in report["models"]]  # fmt: skip
    return (
        _environment()
        .get_template(OWN_TEMPLATE)
        .render(
            report=report,
            columns=0,
            plots=plots,
            failures=failures,
            failed=[(label, len(turns)) for label, turns in missed],
            filters=filters,
            shown=FAILURES_SHOWN,
        )
    )


def _failures(
    models: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], belongs: Callable[[Mapping[str, Any]], Belongs]
) -> tuple[list[dict[str, Any]], list[Filter]]:
    """Return the failures to show, of each model at even distances and sorted by kind, and what they are filtered by.

    Args:
        models: a label and the failures of each; the page opens with the last one's.
        belongs: the kind of a failure and the ways in which it failed.
    """
    found, rows = list[dict[str, Any]](), list[Belongs]()
    for label, failures in models:
        for one in spread(sorted(failures, key=lambda one: str(one["kind"])), FAILURES_SHOWN):
            found.append({"item": one, "engine": label})
            rows.append({"engine": [label], **belongs(one)})
    titles = {"engine": "Model", "way": "What went wrong", "kind": "Kind"}
    filters = filters_of(rows, titles, {"engine": models[-1][0]})
    return [one | {"classes": classes_of(row, filters)} for one, row in zip(found, rows, strict=True)], filters


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent_text,
        "seconds": seconds_text,
        "points": points_text,
        "bytes": bytes_text,
        "number": number_text,
        "pieces": reply_pieces,
        "command": command_text,
        "heat": heat_class,
    }
    return environment


def _difference(
    report: Mapping[str, Any], role: str, against: tuple[str, ...], to: str | None = None
) -> Mapping[str, Any] | None:
    roles = {engine["label"]: engine["role"] for engine in report["engines"]}
    for before in against:
        for item in report["differences"]:
            if roles[item["to"]] == role and roles[item["from"]] == before and to in (None, item["to"]):
                return dict(item)
    return None


def points_text(difference: float | None) -> str:
    """Return a difference of shares (-1 to 1) in percentage points with its sign, or a dash for none."""
    if difference is None:
        return "–"
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def bytes_text(size_bytes: int | None) -> str:
    """Return a size in MiB or GiB, or a dash for none."""
    if size_bytes is None:
        return "–"
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 else f"{size_bytes / 2**20:.0f} MiB"


def number_text(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands apart, or a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


def heat_class(share: float | None) -> str:
    """Return the style class of a cell in the heat table: h0 (none succeed) to h10 (all do)."""
    return "hx" if share is None else f"h{int(10 * share)}"


def command_text(command: Mapping[str, Any]) -> str:
    """Return a command as `device.action(argument=value)`."""
    given = ", ".join(f"{key}={compact_json(value)}" for key, value in command["input"].items())
    return f"{command['device']}.{command['action']}({given})"


def reply_pieces(text: str) -> list[tuple[str, str]]:
    """Return a raw reply cut into ("thought" | "call" | "text", piece), for display only; parsing.py parses."""
    pieces = []
    for match in _PIECES.finditer(text[:REPLY_CHARACTERS]):
        kind = match.lastgroup or "text"
        if match[kind].strip():
            pieces.append((kind, match[kind]))
    if len(text) > REPLY_CHARACTERS:
        pieces.append(("text", f"… {len(text) - REPLY_CHARACTERS} more characters in report.json"))
    return pieces
