"""Readings in words."""

from __future__ import annotations

import math

import pytest

from devices.site.describe import age_text, number_text


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (90, "90 seconds ago"),
        (120, "2 minutes ago"),
        (3 * 3600 + 60, "3 hours ago"),
        (47 * 3600, "47 hours ago"),
        (4.6 * 86400, "5 days ago"),
        (math.inf, "nobody knows since when"),
    ],
)
def test_ages(age_s: float, text: str) -> None:
    assert age_text(age_s) == text


@pytest.mark.parametrize(
    ("value", "text"), [(21, "21"), (21.04, "21"), (0.25, "0.2"), (123456.7, "123456.7"), (1000000, "1000000")]
)
def test_large_numbers_keep_their_digits(value: float, text: str) -> None:
    assert number_text(value) == text
