"""Run models on own cases, in one starting state each or in several, and sum up what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devices.site.site import Site
from edge_agent.evaluation.models.grading import grade_own_cases
from edge_agent.evaluation.models.model import Model
from edge_agent.evaluation.models.placement import Placement, for_each
from edge_agent.evaluation.own.other_typing import (
    WAYS,
    TypedOtherwise,
    in_other_ways,
    typed_otherwise,
    typing_lines,
)
from edge_agent.evaluation.own.own_cases import Graded, OwnCase
from edge_agent.evaluation.own.own_report import table_of, to_plain
from edge_agent.evaluation.own.starting_states import Repeated, are_right, in_other_states, repeated, repeated_lines


@dataclass(frozen=True)
class OwnSuite:
    """Cases, what they are called, where they come from, and what was left out of them by kind and reason."""

    cases: Sequence[OwnCase]
    title: str
    source: str
    left_out: Mapping[tuple[str, str], int] = field(default_factory=dict)


def evaluate_own(
    models: Sequence[Model],
    suite: OwnSuite,
    site: Site,
    placement: Placement,
    *,
    command: str,
    states: int = 1,
    typed: bool = False,
    is_fresh: bool = False,
    shows_misses: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Return a table for each model, as text, and everything as plain data.

    Args:
        models: each runs alone, in a fresh process.
        suite: of the site.
        site: what the cases are about.
        placement: where models run.
        command: for the report.
        states: in how many starting states each case is begun.
        typed: ask each case in other ways of typing too.
        is_fresh: run cases again whose result is known.
        shows_misses: list what went wrong below the tables.

    Raises:
        UnavailableError: a model's process died.
    """
    cases, tables, in_states, in_ways = suite.cases, list[str](), list[Repeated](), list[list[TypedOtherwise]]()
    asked = {way: [typed_otherwise(case, way) for case in cases] for way in WAYS if typed}
    named = f"{len(cases)} cases of {Path(suite.source).name}"
    others = [in_other_states(case, site, states - 1) for case in cases] if states > 1 else []
    varied = [one for each in others for one in each]

    def grade(model: Model) -> list[list[Graded]]:
        sets = (cases, varied, *asked.values())
        return [grade_own_cases(model, site, one, placement, is_fresh=is_fresh) if one else [] for one in sets]

    found = for_each(models, placement, grade)
    graded = [(model.label, turns) for model, (turns, *_) in zip(models, found, strict=True)]
    for label, (turns, extra, *typed_turns) in zip((model.label for model in models), found, strict=True):
        tables.append(f"{label}, {named}\n{table_of(turns, shows_misses=shows_misses)}")
        if states > 1:
            in_states.append(repeated(cases, turns, others, extra))
            tables[-1] = "\n".join([tables[-1], *repeated_lines(in_states[-1])])
        ways = [(way, are_right(asked[way], done)) for way, done in zip(asked, typed_turns, strict=True)]
        in_ways.append(in_other_ways(are_right(cases, turns), ways))
        tables[-1] = "\n".join([tables[-1], *typing_lines(in_ways[-1])])
    return tables, to_plain(graded, suite.title, command, suite.source, suite.left_out, in_states, in_ways)
