"""Wishes of a few words, and what they are not."""

from __future__ import annotations

import pytest

from edge_agent.agent.short_wishes import direction_of, short_wish, without_then


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


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("give the lawn 10 minutes then", "give the lawn 10 minutes"),
        ("put it on at 60, then.", "put it on at 60."),
        ("then turn it off", "then turn it off"),
        ("don't touch it until then", "don't touch it until then"),
        ("if it is below 20 turn it on then", "if it is below 20 turn it on then"),
        ("I leave in ten minutes, turn it off then", "I leave in ten minutes, turn it off then"),
        ("unlock it at four, the cleaner comes then", "unlock it at four, the cleaner comes then"),
        ("Then", "Then"),
    ],
)
def test_a_closing_then_is_no_time(text: str, asked: str) -> None:
    assert without_then(text) == asked
