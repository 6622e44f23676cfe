"""Wishes of a few words, and what they are not."""

from __future__ import annotations

import pytest

from edge_agent.agent.short_wishes import direction_of, short_wish


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("ok 0.5 degrees back up", "0.5 more"),
        ("bit much. 2 degrees less", "2 less"),
        ("10 more", "10 more"),
        ("up by 20 please", "20 more"),
        ("a degree warmer", "1 more"),
        ("half of that", "half of it"),
        ("no, half as bright", "half of it"),
        ("twice that", "twice"),
        ("hm too gloomy. halfway up again", "half"),
        ("one more down", ""),  # one of what?
        ("make it half", ""),  # of it, or of all there is?
        ("20", ""),
        ("turn the fan off. 10 more", ""),
        ("not that. 10 more", ""),
        ("10 more on the bedroom lamp", ""),
    ],
)
def test_what_a_short_wish_comes_to(text: str, wish: str) -> None:
    assert short_wish(text) == wish


@pytest.mark.parametrize(("text", "way"), [("still too bright", "less"), ("brighter please", "more"), ("bright", "")])
def test_a_direction_is_all_that_is_said(text: str, way: str) -> None:
    assert direction_of(text) == way
