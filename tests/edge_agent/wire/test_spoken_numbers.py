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


def test_the_model_sees_digits() -> None:
    assert user_message("HEATING TO TWENTY", {}, "07:00").text.endswith("Request: Heating to 20")
