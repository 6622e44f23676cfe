"""Whether a model knows what it does not know: how often it is wrong where it is sure, and how sure is sure enough.

A reply's confidence is the probability that the model gave to its own tokens, of all that the grammar left it to choose
(Completion.probability). As a number it says little: a long reply has a low one. So it is held against what was right
on cases that nothing was trained on, and only then becomes a probability of being right, and a threshold.

Does not guard against: cases that are easier than what people will say. A threshold is as good as its cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.evaluation.intervals import Share, share_of
from edge_agent.evaluation.own.own_cases import Graded

SMALLEST = 1e-12  # of a confidence, so that it has a logarithm
NEWTON_STEPS, RIDGE = 100, 1e-6


@dataclass(frozen=True)
class Acted:
    """A turn in which something was done: how probable the model found it (0 to 1), and whether it was right."""

    confidence: float
    is_right: bool


@dataclass(frozen=True)
class Point:
    """What acting alone from a confidence on comes to: the share of turns with it, and which of those are wrong."""

    ask_below: float
    coverage: float
    wrong: Share


@dataclass(frozen=True)
class Bin:
    """Turns of about the same predicted probability of being right: its mean, and how many were right."""

    predicted: float
    right: Share


def acted(graded: Iterable[Graded]) -> list[Acted]:
    """Return the turns in which a model did something."""
    return [Acted(one.confidence, not one.problems) for one in graded if one.confidence is not None]


def risk_coverage(turns: Sequence[Acted]) -> list[Point]:
    """Return a point for each confidence that occurs, the surest first; turns that are equally sure go together."""
    ranked = sorted(turns, key=lambda one: -one.confidence)
    points = []
    for count, one in enumerate(ranked, start=1):
        if count == len(ranked) or ranked[count].confidence < one.confidence:
            wrong = share_of(not each.is_right for each in ranked[:count])
            points.append(Point(one.confidence, count / len(ranked), wrong))
    return points


def threshold_for(turns: Sequence[Acted], max_wrong: float) -> Point | None:
    """Return the point that leaves most to the model while at most this share of it is wrong; None if none does."""
    fitting = [one for one in risk_coverage(turns) if one.wrong.share is not None and one.wrong.share <= max_wrong]
    return fitting[-1] if fitting else None


def at_coverage(turns: Sequence[Acted], coverage: float) -> Point | None:
    """Return the first point that leaves at least this share to the model; None without turns."""
    return next((one for one in risk_coverage(turns) if one.coverage >= coverage), None)


def ranking_quality(turns: Sequence[Acted]) -> float | None:
    """Return how often a right turn is surer than a wrong one (AUROC): 0.5 by chance, 1 always; None without both."""
    right = [one.confidence for one in turns if one.is_right]
    wrong = [one.confidence for one in turns if not one.is_right]
    if not right or not wrong:
        return None
    wins = sum((one > other) + 0.5 * (one == other) for one in right for other in wrong)
    return wins / (len(right) * len(wrong))


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: the probability of being right is 1 / (1 + exp(-(slope * log(confidence) + offset)))."""

    slope: float
    offset: float

    def probability(self, confidence: float) -> float:
        """Return how probably a turn of this confidence is right."""
        return 1 / (1 + math.exp(-(self.slope * math.log(max(confidence, SMALLEST)) + self.offset)))


def calibrate(turns: Sequence[Acted]) -> Calibration:
    """Return the likeliest calibration, by Newton's method; targets are Platt's, so that it exists without any error.

    Source: J. Platt, Probabilistic Outputs for Support Vector Machines (1999), section 2.2.
    """
    right = sum(one.is_right for one in turns)
    high, low = (right + 1) / (right + 2), 1 / (len(turns) - right + 2)
    inputs = np.array([[math.log(max(one.confidence, SMALLEST)), 1.0] for one in turns])
    targets = np.array([high if one.is_right else low for one in turns])
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        predicted = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (predicted - targets) + RIDGE * weights
        curvature = inputs.T @ (inputs * (predicted * (1 - predicted))[:, None]) + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), SMALLEST))
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(float(weights[0]), float(weights[1]))


def reliability(turns: Sequence[Acted], calibration: Calibration, bins: int = 5) -> list[Bin]:
    """Return turns in bins of equal size by their predicted probability of being right, the least sure first."""
    ranked = sorted(turns, key=lambda one: one.confidence)
    parts = [ranked[len(ranked) * place // bins : len(ranked) * (place + 1) // bins] for place in range(bins)]
    return [
        Bin(
            sum(calibration.probability(one.confidence) for one in part) / len(part),
            share_of(one.is_right for one in part),
        )
        for part in parts
        if part
    ]
