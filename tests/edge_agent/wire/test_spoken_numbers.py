"""Numbers in words as digits: where they are numbers, and nowhere else."""

from __future__ import annotations

import pytest

from edge_agent.wire.messages import user_message
from edge_agent.wire.spelling import SiteWords
from edge_agent.wire.spoken_numbers import with_digits

WORDS = SiteWords(("line three", "pump two"))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("set the thermostat to twenty two", "set the thermostat to 22"),
        ("run the pump for thirty-five seconds.", "run the pump for 35 seconds."),
        ("twenty one and a half degrees", "21.5 degrees"),
        ("zero point five", "0.5"),
        ("half a degree up", "0.5 degrees up"),
        ("a hundred and five percent", "105 percent"),
        ("two degrees warmer, one minute", "2 degrees warmer, 1 minute"),
        ("  ten  ", "  10  "),
        ("ten percent, no wait, twenty", "10 percent, no wait, 20"),
    ],
)
def test_a_number_is_in_digits(said: str, shown: str) -> None:
    assert with_digits(said, WORDS) == shown == with_digits(shown, WORDS)


@pytest.mark.parametrize(
    "said",
    [
        "the other one",
        "both of the two lamps",
        "three quarters open",
        "a third of it",
        "the fifteenth",
        "turn on line three and pump two",
        'call it "twenty two"',
        "set it to 21, no one is here",
        "",
    ],
)
def test_what_is_no_number_stays(said: str) -> None:
    assert with_digits(said, WORDS) == said


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("order seventy sixty-one", "order 7061"),
        ("article five seven one?", "article 571?"),
        ("Eight-oh-six and one thirty-five", "806 and 135"),
        ("nineteen ninety nine", "1999"),
        ("y one-eighty", "y 180"),
        ("four thousand one hundred forty-one", "4141"),
        ("twenty five and thirty-five", "25 and 35"),
        ("at seven thirty", "at 7 30"),
        ("around six fifteen, from one two three", "around 6 15, from 1 2 3"),
        ("zone one ten minutes", "zone 1 10 minutes"),
        ("light two forty percent", "light 2 40 percent"),
        ("one two three four five six", "1 2 3 4 5 6"),  # no tool takes as many digits
        ("close one or two", "close one or two"),
    ],
)
def test_a_long_number_may_be_said_in_parts(said: str, shown: str) -> None:
    assert with_digits(said, SiteWords(largest=9999)) == shown


def test_parts_stay_apart_where_no_tool_takes_long_numbers() -> None:
    assert with_digits("six ninety-five", SiteWords(largest=3)) == "6 95"


def test_the_model_sees_digits() -> None:
    assert user_message("HEATING TO TWENTY", {}, "07:00").text.endswith("Request: Heating to 20")
