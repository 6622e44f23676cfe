"""Slips of the finger in the site's words are undone; other words stay."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from edge_agent.wire.messages import user_message
from edge_agent.wire.slips import without_slips
from edge_agent.wire.spelling import SiteWords

WORDS = SiteWords(
    (
        "closet",
        "three",
        "quiet",
        "kitchen light",
        "quiet room",
        "roof vent",
        "living blinds",
        "front",
        "frond",
        "Wärmepumpe",
    )
)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("kitchn light on", "kitchen light on"),
        ("ligth off", "light off"),
        ("KITCEHN LIGHT", "KITCHEN LIGHT"),
        ("the kiitchen, please", "the kitchen, please"),
        ("blidns down", "blinds down"),
        ("Wärmepmpe an", "Wärmepumpe an"),
        ("please switch of the lights", "please switch off the lights"),
        ("TURN OF ALL LIGHTS", "turn off all lights"),
    ],
)
def test_a_slip_in_a_name_is_undone(typed: str, meant: str) -> None:
    assert without_slips(typed, WORDS).lower() == meant.lower()


@pytest.mark.parametrize(
    "typed",
    [
        "kitten light",  # two slips
        "night, sight, right",  # another first letter
        "lights",
        "blind",
        "quite warm",
        "roof vnet",  # too short to be sure
        "'kitchn'",
        "frnt",
        "frond front",
        "light2 ligth_",
        "close it, quite there",
        "at the turn of the century",
        "'turn of the tide'",
        "",
    ],
)
def test_what_may_be_meant_stays(typed: str) -> None:
    assert without_slips(typed, WORDS) == typed


def test_a_word_near_two_of_a_site_stays() -> None:
    assert without_slips("sockt socet", SiteWords(("socket", "sockets here"))) == "socket socket"
    assert without_slips("blends", SiteWords(("blend", "blended"))) == "blends"
    assert without_slips("heatr", SiteWords(("heater", "heatar"))) == "heatr"


def test_the_model_sees_names_without_slips() -> None:
    assert user_message("kitchn light on", {}, "07:00", WORDS).text.endswith("Request: kitchen light on")


def test_the_words_of_the_corpus_are_no_slips() -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "common_words.py"))
    assert script["OUT"].read_text(encoding="utf-8") == script["common_words"](), "run python scripts/common_words.py"
