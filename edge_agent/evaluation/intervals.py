"""Shares with 95 % intervals and paired differences."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

Z_95 = NormalDist().inv_cdf(0.975)
RESAMPLES = 2000
BOOTSTRAP_SEED = 20240229


@dataclass(frozen=True)
class Share:
    """`count` of `total`, with a 95 % interval; `share`, `low` and `high` are 0 to 1, None without any total."""

    count: int
    total: int
    share: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.share is None or self.low is None or self.high is None:
            return "none"
        return f"{self.count} of {self.total}, {self.share:.1%} ({self.low:.0%} to {self.high:.0%})"


def share_of(flags: Iterable[bool]) -> Share:
    """Return how many flags are set, with the Wilson interval."""
    listed = list(flags)
    return wilson(sum(listed), len(listed))


def wilson(count: int, total: int) -> Share:
    """Return `count` of `total` with the 95 % score interval.

    Source: E. B. Wilson, Probable Inference, JASA 22 (1927); without continuity correction.
    """
    if not total:
        return Share(0, 0, None, None, None)
    share, z2 = count / total, Z_95**2
    middle = share + z2 / (2 * total)
    spread = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    low, high = ((middle + sign * spread) / (1 + z2 / total) for sign in (-1, 1))
    return Share(count, total, share, 0.0 if count == 0 else low, 1.0 if count == total else high)


@dataclass(frozen=True)
class Difference:
    """Second minus first share on the same cases (-1 to 1), its 95 % interval, and the cases gained and lost."""

    difference: float | None
    low: float | None
    high: float | None
    total: int
    gained: int
    lost: int


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """Return what changed from first to second, case by case; percentile bootstrap over cases, fixed seed.

    Where every case changed alike (mostly: none changed) there is nothing to draw from; the interval then has the
    width of Wilson's bound for 0 of n cases, because n equal cases do not prove that all are.
    """
    changes = [int(after) - int(before) for before, after in zip(first, second, strict=True)]
    total, gained, lost = len(changes), changes.count(1), changes.count(-1)
    if not total:
        return Difference(None, None, None, 0, 0, 0)
    difference = (gained - lost) / total
    if len(set(changes)) == 1:
        slack = wilson(0, total).high or 0.0
        low, high = max(difference - slack, -1.0), min(difference + slack, 1.0)
    else:
        draw = random.Random(BOOTSTRAP_SEED)
        means = [sum(draw.choices(changes, k=total)) / total for _ in range(RESAMPLES)]
        low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return Difference(difference, low, high, total, gained, lost)
