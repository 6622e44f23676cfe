"""Measure how sure a bundle's model must be to act without asking, and write that into the bundle."""

from __future__ import annotations

from pathlib import Path

from devices.durable import sha256_of
from devices.errors import GateError, UsageError
from edge_agent.bundle import CONFIDENCE, Confidence, find_bundle, open_bundle
from edge_agent.evaluation.models.grading import grade_own_cases
from edge_agent.evaluation.models.model import find_model
from edge_agent.evaluation.models.placement import Placement
from edge_agent.evaluation.own.confidence import acted, threshold_for
from edge_agent.evaluation.own.own_cases import Graded, read_own_cases
from edge_agent.evaluation.own.own_report import LEAST_TURNS
from export.bundle.writer import put_file


def calibrate(path: Path, cases: Path, max_wrong: float, placement: Placement) -> tuple[Confidence, list[Graded]]:
    """Run a bundle's model on cases of its site, find its threshold, and put that into the bundle.

    Args:
        path: the bundle, not on a box.
        cases: a file of own cases that nothing was trained on.
        max_wrong: the share of what is done without asking that may be wrong, 0 to 1.
        placement: where the model runs.

    Raises:
        UsageError: no such bundle or file, a bundle on a box, or too few cases in which the model does something.
        GateError: too much is wrong even where the model is surest.
    """
    bundle = open_bundle(path)
    found = read_own_cases(cases, bundle.site)
    graded = grade_own_cases(find_model(str(path), bundle.site), bundle.site, found, placement)
    turns = acted(graded)
    if len(turns) < LEAST_TURNS:
        raise UsageError(f"{cases}: the model does something in {len(turns)} turns", hint=f"give {LEAST_TURNS} or more")
    point = threshold_for(turns, max_wrong)
    if point is None:
        raise GateError(f"{path}: more than {max_wrong:.1%} is wrong even where the model is surest",
                        hint="allow more with --max-wrong, or train for longer")  # fmt: skip
    confidence = Confidence(
        schema="confidence/v1",
        ask_below=point.ask_below,
        max_wrong=max_wrong,
        turns=len(turns),
        acted=point.wrong.total,
        wrong=point.wrong.count,
        cases=cases.name,
        cases_sha256=sha256_of(cases),
    )
    put_file(find_bundle(path), CONFIDENCE, (confidence.model_dump_json(by_alias=True, indent=2) + "\n").encode())
    return confidence, graded
