"""The evaluation report: report.json for machines, report.html for people, a short table for the terminal.

report.json is complete and the page is made from it alone, so an old report can be rendered again. What the model
said is kept as it was said: whoever shows it must escape it, as report_page.py does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from devices.durable import write_file
from devices.errors import UsageError
from edge_agent.evaluation.evaluation import CaseOutcome, Evaluation
from edge_agent.evaluation.metrics import METRICS, EngineMetrics, compare, measure
from edge_agent.evaluation.report_page import points_text, render_html
from edge_agent.evaluation.report_plots import percent_text, seconds_text
from edge_agent.evaluation.scoring import CaseScore, failed_ways

SCHEMA = "report/v1"
EXAMPLES = 6
Role = Literal["base", "tuned", "f16", "quant"]


@dataclass(frozen=True)
class EngineRun:
    """One engine's evaluation and its place in the story.

    Attributes:
        label: what people call it, such as "Q4_K_M"; unique in the report.
        role: base (untuned), tuned (adapter on the 16-bit base), f16 (merged, converted) or quant.
        evaluation: over the same cases as the others.
        file_bytes: size of the model's file, if it is one.
    """

    label: str
    role: Role
    evaluation: Evaluation
    file_bytes: int | None = None


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from; the date is passed in so that a report can be made again, byte for byte."""

    date: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]


def build_report(
    runs: Sequence[EngineRun],
    provenance: Provenance,
    *,
    title: str,
    stage_times_s: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the report as plain values, ready for JSON.

    Args:
        runs: in the order in which to show them; the first of each role is what others are compared with.
        provenance: date, command, machine, versions.
        title: what was evaluated.
        stage_times_s: seconds by stage, in order.

    Raises:
        UsageError: no run, a label twice, or runs over different cases.
    """
    _require_comparable(runs)
    measured = [measure(run.evaluation) for run in runs]
    return {
        "schema": SCHEMA,
        "title": title,
        **asdict(provenance),
        "cases": measured[0].cases,
        "cases_by_kind": {kind: share.total for kind, share in measured[0].by_kind.items()},
        "metrics": METRICS,
        "engines": [_engine_part(run, metrics) for run, metrics in zip(runs, measured, strict=True)],
        "differences": _differences(runs, measured),
        "stage_times_s": dict(stage_times_s or {}),
    }


def _require_comparable(runs: Sequence[EngineRun]) -> None:
    if not runs:
        raise UsageError("a report needs at least one engine's evaluation")
    labels = [run.label for run in runs]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UsageError(f"two evaluations are labelled {twice!r}")
    first = [outcome.case for outcome in runs[0].evaluation.constrained]
    for run in runs[1:]:
        if [outcome.case for outcome in run.evaluation.constrained] != first:
            raise UsageError(f"{run.label} and {runs[0].label} were evaluated on different cases")


def _engine_part(run: EngineRun, metrics: EngineMetrics) -> dict[str, Any]:
    judged = list(zip(run.evaluation.constrained, metrics.scores, strict=True))
    part = asdict(metrics)
    del part["scores"], part["free_scores"]
    return {
        "label": run.label,
        "role": run.role,
        "file_bytes": run.file_bytes,
        **part,
        "success": {score.id: score.is_success for score in metrics.scores},
        "failures": [_transcript(outcome, score) for outcome, score in judged if not score.is_success],
        "examples": _examples(judged),
    }


def _examples(judged: Sequence[tuple[CaseOutcome, CaseScore]]) -> list[dict[str, Any]]:
    by_kind: dict[str, dict[str, Any]] = {}
    for outcome, score in judged:
        if score.is_success and score.kind not in by_kind:
            by_kind[score.kind] = _transcript(outcome, score)
    return list(by_kind.values())[:EXAMPLES]


def _transcript(outcome: CaseOutcome, score: CaseScore) -> dict[str, Any]:
    case, result = outcome.case, outcome.result
    expected = [
        {"device": command.device, "action": command.action, "input": command.input, "status": status}
        for command, status in zip(case.commands, case.statuses, strict=True)
    ]
    return {
        "id": case.id,
        "kind": case.kind,
        "ask": case.ask,
        "expected": expected,
        "answer_has": case.answer_has,
        "got": [asdict(action) for action in result.actions],
        "answer": result.answer,
        "model_answer": result.model_answer,
        "claims_success": score.claims_success,
        "stop_reason": result.stop_reason,
        "problems": list(score.problems),
        "ways": failed_ways(outcome, score) if score.problems else [],
        "replies": [completion.text for completion in result.completions],
    }


def _differences(runs: Sequence[EngineRun], measured: Sequence[EngineMetrics]) -> list[dict[str, Any]]:
    """Compare tuned with base, and every later form with tuned and with the converted one."""
    first: dict[str, int] = {}
    for index, run in enumerate(runs):
        first.setdefault(run.role, index)
    against = {"base": (), "tuned": ("base",), "f16": ("tuned",), "quant": ("tuned", "f16")}
    return [
        {
            "from": runs[first[role]].label,
            "to": run.label,
            "metrics": {name: asdict(value) for name, value in compare(measured[first[role]], metrics).items()},
        }
        for run, metrics in zip(runs, measured, strict=True)
        for role in against[run.role]
        if role in first
    ]


def write_report(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write report.json, report.html and report.md, each whole or not at all; return the paths of the first two."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        "report.html": render_html(report),
        "report.md": markdown_table(report),
    }
    for name, text in texts.items():
        write_file(folder / name, text.encode("utf-8", errors="backslashreplace"))
    return folder / "report.json", folder / "report.html"


def read_report(path: Path) -> dict[str, Any]:
    """Return a report from its report.json. Raises UsageError if it is none that this version reads."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the report {path}: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UsageError(f"{path} is no report of schema {SCHEMA}")
    return report


TABLE = {
    "task_success": "tasks done",
    "tool_accuracy": "tool",
    "argument_accuracy": "arguments",
    "no_call_accuracy": "no call",
    "json_valid_free": "free JSON",
}


def markdown_table(report: Mapping[str, Any]) -> str:
    """Return the main numbers as Markdown, for a pull request, with the differences and success by kind below."""
    rows = _table_rows(report)
    kinds = {kind: [engine["by_kind"][kind] for engine in report["engines"]] for kind in report["cases_by_kind"]}
    by_kind = [
        [kind, str(shares[0]["total"]), *(percent_text(one["share"], 0) for one in shares)]
        for kind, shares in kinds.items()
    ]
    lines = [
        f"### {report['title']}: {report['cases']} cases",
        "",
        *_markdown_lines(rows),
        "",
        *(f"- {_difference_line(difference)}" for difference in report["differences"]),
        "",
        *_markdown_lines([["kind", "cases", *(engine["label"] for engine in report["engines"])], *by_kind]),
        "",
        f"`{report['command']}`, {report['date']}",
    ]
    return "\n".join(lines) + "\n"


def _markdown_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _table_rows(report: Mapping[str, Any]) -> list[list[str]]:
    header = ["engine", *TABLE.values(), "median", "p95", "decode", "memory"]
    return [header, *(_table_row(engine) for engine in report["engines"])]


def terminal_table(report: Mapping[str, Any]) -> str:
    """Return the main numbers as an aligned plain-text table with the differences below."""
    rows = _table_rows(report)
    header = rows[0]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in
                  enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += [f"{report['cases']} cases; in brackets 95 % intervals"]
    lines += [_difference_line(difference) for difference in report["differences"]]
    return "\n".join(lines)


def _table_row(engine: Mapping[str, Any]) -> list[str]:
    shares, latency = engine["shares"], engine["latency"]
    success = shares["task_success"]
    cells = [percent_text(shares[name]["share"]) for name in TABLE]
    if success["share"] is not None:
        cells[0] += f" ({100 * success['low']:.0f} to {100 * success['high']:.0f})"
    speed = latency and latency["decode_tokens_per_s"]
    times = [seconds_text(latency["turn_s"][name]) if latency else "–" for name in ("median", "p95")]
    memory = f"{engine['memory_bytes'] / 2**20:.0f} MiB"
    return [engine["label"], *cells, *times, f"{speed:.0f} tok/s" if speed else "–", memory]


def _difference_line(difference: Mapping[str, Any]) -> str:
    task = difference["metrics"]["task_success"]
    if task["difference"] is None:
        return f"{difference['from']} → {difference['to']}: no cases"
    change, low, high = (points_text(task[name]) for name in ("difference", "low", "high"))
    cases = f"{task['gained']} gained, {task['lost']} lost"
    return f"{difference['from']} → {difference['to']}: {change} points ({low} to {high}); {cases}"
