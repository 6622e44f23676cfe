"""Whether a model knows what it does not know: on turns whose right values are known, one of them over-confident."""

from __future__ import annotations

import math
from random import Random

import pytest

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
from edge_agent.evaluation.own.own_cases import Graded
from edge_agent.evaluation.own.own_report import confidence_lines, table_of, to_plain
from edge_agent.evaluation.report_page import render_own_cases

KNOWING = [Acted(confidence, confidence > 0.35) for confidence in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)]
OVERCONFIDENT = [Acted(0.99, False), *KNOWING[:6]]


def test_risk_and_coverage_are_counted_from_the_surest_on() -> None:
    points = risk_coverage(KNOWING)
    assert [(one.ask_below, one.coverage, one.wrong.count) for one in points[-3:]] == [
        (0.4, 0.75, 0),
        (0.3, 0.875, 1),
        (0.2, 1.0, 2),
    ]
    found = at_coverage(KNOWING, 0.8)
    assert found is not None and (found.coverage, found.wrong.count) == (0.875, 1)


def test_turns_that_are_equally_sure_are_one_point() -> None:
    points = risk_coverage([Acted(0.5, True), Acted(0.5, False), Acted(0.4, True)])
    assert [(one.coverage, one.wrong.count) for one in points] == [(pytest.approx(2 / 3), 1), (1.0, 1)]


def test_the_threshold_leaves_as_much_to_the_model_as_may_be_wrong() -> None:
    for most, ask_below in ((0.0, 0.4), (0.125, 0.4), (0.15, 0.3), (0.25, 0.2)):
        point = threshold_for(KNOWING, most)
        assert point is not None and point.ask_below == ask_below
    assert threshold_for([Acted(0.9, False)], 0.5) is None and threshold_for([], 0.5) is None


def test_an_overconfident_model_is_caught() -> None:
    assert ranking_quality(KNOWING) == 1.0
    assert ranking_quality(OVERCONFIDENT) == 0.0
    assert threshold_for(OVERCONFIDENT, 0.1) is None
    assert ranking_quality([Acted(0.5, True), Acted(0.5, False)]) == 0.5
    assert ranking_quality([Acted(0.5, True)]) is None


def test_calibration_finds_the_law_that_made_the_turns() -> None:
    rng, turns = Random(5), list[Acted]()
    for _ in range(4000):
        log = -3 * rng.random()
        turns.append(Acted(math.exp(log), rng.random() < 1 / (1 + math.exp(-(2.0 * log + 2.5)))))
    found = calibrate(turns)
    assert found.slope == pytest.approx(2.0, abs=0.25) and found.offset == pytest.approx(2.5, abs=0.3)
    for one in reliability(turns, found):
        assert one.right.low is not None and one.right.high is not None
        assert one.right.low - 0.02 < one.predicted < one.right.high + 0.02


@pytest.mark.parametrize("turns", [KNOWING, [Acted(0.9, True)] * 5, [Acted(0.0, False), Acted(1.0, True)]])
def test_calibration_exists_where_right_and_wrong_are_apart_or_nothing_is_wrong(turns: list[Acted]) -> None:
    found = calibrate(turns)
    assert all(0 <= found.probability(one.confidence) <= 1 for one in turns)


def graded(count: int) -> list[Graded]:
    turns = [Graded("act", f"<b>ask {number}</b>", "Done.", ("a.on({}) done",), (), 0.9) for number in range(count)]
    turns[0] = Graded("act", "<i>wrong</i>", "Done.", ("a.on({}) done",), ("a.on became True",), 0.2, "a is a.")
    return [*turns, Graded("question", "is it on?", "No.", (), ())]


def test_the_report_says_how_far_confidence_can_be_trusted() -> None:
    assert len(acted(graded(30))) == 30  # a turn in which nothing was done is not asked about
    lines = confidence_lines(acted(graded(30)))
    assert lines[0].endswith("a right one is surer than a wrong one in 100%")
    assert lines[1] == "  wrong of all: 1 of 30, 3.3% (1% to 17%)" and "0 of 29" in lines[2]
    text = table_of(graded(30), shows_misses=True)
    assert "act" in text and "'<i>wrong</i>'" in text
    page = render_own_cases(to_plain([("Q8_0", graded(30)), ("few", graded(3))], "home", "edgewright eval", "c.yaml"))
    assert page.count('class="curve"') == 1 and page.count('class="point"') == 5
    assert "It did too little to say." in page and "<i>wrong" not in page and "&lt;i&gt;wrong" in page
