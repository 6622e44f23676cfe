"""Sum up cases that a person wrote: right by kind, and how far the model's confidence can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edge_agent.evaluation.intervals import Share, share_of
from edge_agent.evaluation.own.confidence import (
    Acted,
    acted,
    at_coverage,
    calibrate,
    ranking_quality,
    reliability,
    risk_coverage,
    threshold_for,
)
from edge_agent.evaluation.own.other_typing import TypedOtherwise
from edge_agent.evaluation.own.own_cases import Graded
from edge_agent.evaluation.own.starting_states import Repeated

COVERAGES = (1.0, 0.9, 0.75, 0.5)
MOST_WRONG = (0.01, 0.02, 0.05)
STEPS = {"sentence": "by a known sentence", "model": "by the model", "question": "asked back"}
LEAST_TURNS = 20  # from which on a curve says something


def to_plain(
    graded: Sequence[tuple[str, Sequence[Graded]]],
    title: str,
    command: str,
    cases: str,
    left_out: Mapping[tuple[str, str], int] | None = None,
    states: Sequence[Repeated] = (),
    typed: Sequence[Sequence[TypedOtherwise]] = (),
) -> dict[str, Any]:
    """Return the report as plain data.

    Args:
        graded: a label and the turns of each model.
        title: what was evaluated.
        command: that made it.
        cases: where they come from.
        left_out: how many cases of a suite were not asked, by kind and reason.
        states: of each model, what came of the cases in several starting states; empty if they had one.
        typed: of each model, what came of the cases in other ways of typing.
    """
    models = [
        {
            "label": label,
            "kinds": {kind: asdict(share) for kind, share in by_kind(turns).items()},
            "all": asdict(share_of(not one.problems for one in turns)),
            "steps": {step: asdict(share) for step, share in by_step(turns).items()},
            "confidence": _confidence(acted(turns)),
            "turns": [asdict(one) for one in turns],
            "states": asdict(states[number]) if states else None,
            "typed": [asdict(one) for one in typed[number]] if typed else [],
        }
        for number, (label, turns) in enumerate(graded)
    ]
    missing = [{"kind": kind, "reason": why, "count": count} for (kind, why), count in (left_out or {}).items()]
    return {"title": title, "command": command, "cases": cases, "models": models, "left_out": missing}


def by_kind(turns: Sequence[Graded]) -> dict[str, Share]:
    """Return how many turns of each kind came out right, in the order of the cases."""
    kinds = dict.fromkeys(one.kind for one in turns)
    return {kind: share_of(not one.problems for one in turns if one.kind == kind) for kind in kinds}


def by_step(turns: Sequence[Graded]) -> dict[str, Share]:
    """Return how many turns came out right of those that each step worked; a question that was due is right too."""
    steps = [step for step in STEPS if any(one.step == step for one in turns)]
    return {step: share_of(not one.problems for one in turns if one.step == step) for step in steps}


def _confidence(turns: Sequence[Acted]) -> dict[str, Any] | None:
    """Return what a model's confidence is worth; None if it did too little."""
    if len(turns) < LEAST_TURNS:
        return None
    points = {share: at_coverage(turns, share) for share in COVERAGES}
    limits = {share: threshold_for(turns, share) for share in MOST_WRONG}
    return {
        "turns": len(turns),
        "ranking_quality": ranking_quality(turns),
        "at_coverage": {f"{share:g}": asdict(point) for share, point in points.items() if point},
        "at_most_wrong": {f"{share:g}": point and asdict(point) for share, point in limits.items()},
        "curve": [asdict(one) for one in risk_coverage(turns)],
        "bins": [asdict(one) for one in reliability(turns, calibrate(turns))],
    }


def table_of(turns: Sequence[Graded], *, shows_misses: bool = False) -> str:
    """Return how many turns of each kind came out right, with 95 % intervals, and what confidence says, as text."""
    shares = [*by_kind(turns).items(), ("TOTAL", share_of(not one.problems for one in turns))]
    width = max(14, *(len(name) for name, _ in shares))
    lines = [
        f"{name or 'request':<{width}} "
        f"{one.count:>4} of {one.total:<4} {one.share:6.1%}  ({one.low:.0%} to {one.high:.0%})"
        for name, one in shares
    ]
    lines += [f"{STEPS[step]}: {share}" for step, share in by_step(turns).items() if step != "model"]
    lines += confidence_lines(acted(turns))
    missed = [one for one in turns if one.problems] if shows_misses else []
    lines += [
        f"{one.kind}: {one.ask!r} -> {one.answer!r}, {', '.join(one.actions)}: {one.problems[0]}" for one in missed
    ]
    return "\n".join(lines)


def confidence_lines(turns: Sequence[Acted]) -> list[str]:
    """Return how much is wrong of what a model does, and of the part that it is surest of, as text."""
    if len(turns) < LEAST_TURNS:
        return []
    quality = ranking_quality(turns)
    known = "" if quality is None else f"; a right one is surer than a wrong one in {quality:.0%}"
    lines = [f"it did something in {len(turns)} turns{known}"]
    for share in COVERAGES:
        if point := at_coverage(turns, share):
            which = "of all" if share == 1 else f"of the surest {point.coverage:.0%}"
            lines.append(f"  wrong {which}: {point.wrong}")
    return lines
