"""Compare two evaluations of the same cases, case by case: what was gained, what was lost, and whether it is chance.

Reads what `edgewright eval` wrote: report.json of generated cases, own_cases.json, turns.json of a toolset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import GateError, UsageError, did_you_mean
from edge_agent.evaluation.intervals import Difference, Share, paired_difference, share_of

FILES = ("report.json", "own_cases.json", "turns.json")
LISTED = 20  # gained and lost cases that are shown


@dataclass(frozen=True)
class Item:
    """One case of a model: `what` is its request with its kind, `problem` what was wrong, "" if nothing was."""

    what: str
    is_right: bool
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """What one model came to: its items by the case's id."""

    label: str
    items: dict[str, Item]


@dataclass(frozen=True)
class Change:
    """A case that came out otherwise, with what was wrong where it was."""

    what: str
    problem: str


@dataclass(frozen=True)
class Comparison:
    """Two results on the cases that both have; `left_out` counts cases of one of them only."""

    before: Share
    after: Share
    difference: Difference
    gained: tuple[Change, ...]
    lost: tuple[Change, ...]
    left_out: int

    def require_not_worse(self) -> None:
        """Raise GateError if more was lost than chance explains."""
        if self.difference.high is not None and self.difference.high < 0:
            raise GateError(
                f"worse by {-100 * (self.difference.difference or 0):.1f} points, more than chance explains"
            )


def read_result(path: Path, label: str = "") -> Result:
    """Return what a model came to in an evaluation.

    Args:
        path: the folder that `edgewright eval` filled, or a file of it.
        label: of the model; "" is the last one.

    Raises:
        UsageError: no evaluation is there, or it has no such model.
    """
    found = [one for one in FILES if (path / one).is_file()] if path.is_dir() else [path.name]
    if len(found) != 1:
        what = f"{' and '.join(found)} are both there" if found else "no evaluation is there"
        raise UsageError(f"{path}: {what}", hint=f"give one of {', '.join(FILES)}")
    file = path / found[0] if path.is_dir() else path
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        models = {one["label"]: one for one in plain.get("engines") or plain["models"]}
        chosen = models.get(label) if label else list(models.values())[-1]
        if chosen is None:
            raise UsageError(f"{file} has no model {label}", hint=did_you_mean(label, models))
        return Result(chosen["label"], _reader_of(chosen)(chosen))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{file}: cannot be read as an evaluation: {type(error).__name__} {error}") from error


def _reader_of(model: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, Item]]:
    return _generated if "success" in model else _own if "turns" in model else _replies


def _generated(model: Mapping[str, Any]) -> dict[str, Item]:
    failed = {one["id"]: one for one in model["failures"]}
    return {
        id_: Item("", True) if is_right else Item(
            f"{failed[id_]['ask']} ({failed[id_]['kind']})", False, "; ".join(failed[id_]["problems"])
        )
        for id_, is_right in model["success"].items()
    }  # fmt: skip


def _own(model: Mapping[str, Any]) -> dict[str, Item]:
    return {
        f"{number} {one['ask']}": Item(f"{one['ask']} ({one['kind']})", not one["problems"], "; ".join(one["problems"]))
        for number, one in enumerate(model["turns"])
    }


def _replies(model: Mapping[str, Any]) -> dict[str, Item]:
    return {
        one["id"]: Item(f"{one['asked']} ({one['kind']})", one["is_good"], "" if one["is_good"] else one["reply"])
        for one in model["constrained"]["replies"]
    }


def compare(before: Result, after: Result) -> Comparison:
    """Return what changed from one result to another. Raises UsageError if they have no case in common."""
    both = [id_ for id_ in before.items if id_ in after.items]
    if not both:
        raise UsageError("the two evaluations have no case in common", hint="evaluate both on the same --cases")
    pairs = [(before.items[id_], after.items[id_]) for id_ in both]
    first, second = ([one.is_right for one in side] for side in zip(*pairs, strict=True))
    return Comparison(
        share_of(first),
        share_of(second),
        paired_difference(first, second),
        tuple(Change(old.what, old.problem) for old, new in pairs if new.is_right and not old.is_right),
        tuple(Change(new.what, new.problem) for old, new in pairs if old.is_right and not new.is_right),
        len(before.items) + len(after.items) - 2 * len(both),
    )


def comparison_text(before: str, after: str, found: Comparison) -> str:
    """Return a comparison as Markdown, which also reads well at a terminal."""
    change = found.difference
    assert change.difference is not None and change.low is not None and change.high is not None
    interval = f"{100 * change.low:+.1f} to {100 * change.high:+.1f}, 95 % interval"
    counts = f"{change.total} cases: {change.gained} gained, {change.lost} lost"
    lines = [
        f"**{100 * change.difference:+.1f} points** ({interval}) on {counts}",
        "",
        "| | right (95 % interval) |",
        "|---|---|",
        *(f"| {name} | {share} |" for name, share in ((before, found.before), (after, found.after))),
    ]
    if found.left_out:
        lines += ["", f"{found.left_out} cases are in one of them only, and not counted."]
    for title, changes in (("Lost", found.lost), ("Gained", found.gained)):
        if changes:
            lines += ["", f"{title}:", "", *_listed(changes)]
    return "\n".join(lines)


def _listed(changes: Sequence[Change]) -> list[str]:
    lines = [f"- {' '.join(f'{one.what}: {one.problem}'.split())}" for one in changes[:LISTED]]
    return lines + ([f"- and {len(changes) - LISTED} more"] if len(changes) > LISTED else [])
