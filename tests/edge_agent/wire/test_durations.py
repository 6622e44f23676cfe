"""Durations are also in the units that a site's tools take."""

from __future__ import annotations

import pytest

from devices.site.site import load_site
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.durations import only_duration_s, with_smaller_units
from edge_agent.wire.messages import user_message
from edge_agent.wire.spelling import SiteWords

BOTH = SiteWords(("tea 2 minutes timer",), time_units=("minutes", "seconds"))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("run it for 2 minutes", "run it for 2 minutes (120 seconds)"),
        ("half a minute please", "half a minute (30 seconds) please"),
        ("a quarter of an hour", "a quarter of an hour (15 minutes, 900 seconds)"),
        ("a minute and a half", "a minute and a half (90 seconds)"),
        ("1.5 hours", "1.5 hours (90 minutes, 5400 seconds)"),
        ("for 10min", "for 10min (600 seconds)"),
        ("a 3-minute run", "a 3-minute (180 seconds) run"),
        ("ONE HOUR", "ONE HOUR (60 minutes, 3600 seconds)"),
    ],
)
def test_a_duration_is_also_in_smaller_units(said: str, shown: str) -> None:
    assert with_smaller_units(said, BOTH) == shown


@pytest.mark.parametrize(
    "said", ["run it for 40 seconds", "tea 2 minutes timer on", "say '2 minutes'", "the minutes of it", "at 7.30", ""]
)
def test_what_is_no_longer_duration_stays(said: str) -> None:
    assert with_smaller_units(said, BOTH) == said


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("run it for 2 minutes", 120),
        ("half an hour please", 1800),
        ("for a minute", 60),
        ("40 seconds of water", 40),
        ("run it in 10 minutes", None),
        ("wait 10 minutes and run it", None),
        ("one sec, run it for 30", None),
        ("run it a second time", None),
        ("for 30 seconds, no, 60", None),
        ("tea 2 minutes timer on", None),
        ("run it", None),
    ],
)
def test_only_a_duration_that_stands_alone_is_meant(said: str, seconds: float | None) -> None:
    assert only_duration_s(said, BOTH) == seconds


def test_only_units_of_the_tools_are_added() -> None:
    assert with_smaller_units("for 2 minutes", SiteWords(time_units=("minutes",))) == "for 2 minutes"
    assert with_smaller_units("for an hour", SiteWords(time_units=("minutes",))) == "for an hour (60 minutes)"
    assert with_smaller_units("for an hour", SiteWords()) == "for an hour"


def test_the_model_sees_the_units_of_its_site() -> None:
    words = contract_of(load_site("home"), load_template("chatml")).words
    assert user_message("pump for two minutes", {}, "07:00", words).text.endswith("pump for 2 minutes (120 seconds)")
