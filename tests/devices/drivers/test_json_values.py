"""Words in answers: what they stand for does not hang on capitals, where two words do not differ by them alone."""

from __future__ import annotations

import pytest

from devices.drivers.json_values import JsonValue, Moving, key_of, put
from devices.site.schema import DataSchema, Value

BOOLEAN, MODE = DataSchema(type="boolean"), DataSchema(type="string", enum=("eco", "comfort"))


@pytest.mark.parametrize(("raw", "value"), [("ON", True), ("on", True), ("Off", False)])
def test_words_for_true_and_false(raw: str, value: bool) -> None:
    assert JsonValue(words=("OFF", "ON")).to_value(raw, BOOLEAN) is value


def test_words_that_differ_by_capitals_alone_are_kept_apart() -> None:
    place = JsonValue(words=("A", "a"))
    assert (place.to_value("A", BOOLEAN), place.to_value("a", BOOLEAN)) == (False, True)


@pytest.mark.parametrize("raw", ["auto", 1, None, ["ON"]])
def test_another_word_is_none(raw: object) -> None:
    with pytest.raises(ValueError, match="no boolean"):
        JsonValue(words=("OFF", "ON")).to_value(raw, BOOLEAN)


@pytest.mark.parametrize(("raw", "value"), [("eco", "eco"), ("ECO", "eco"), ("Party", "Party")])
def test_words_of_a_list(raw: str, value: Value) -> None:
    assert JsonValue().to_value(raw, MODE) == value


ENERGY = {"ENERGY": {"Power": [41, 7], "0": 5}, "PMS5003": {"PM2.5": 4.5}}
NUMBER = DataSchema(type="number", minimum=0, maximum=100)


@pytest.mark.parametrize(
    ("key", "value"),
    [("ENERGY.Power.0", 41), ("ENERGY.Power.1", 7), ("ENERGY.0", 5), (key_of("PMS5003", "PM2.5"), 4.5)],
)
def test_keys_lead_into_lists_and_past_dots(key: str, value: float) -> None:
    assert JsonValue(key=key).to_value(ENERGY, NUMBER) == value


@pytest.mark.parametrize(
    "key", ["ENERGY.Power.2", "ENERGY.Power.-1", "ENERGY.Power.x", "ENERGY.Power.0.1", "PMS5003.PM2.5"]
)
def test_what_is_not_there_is_said(key: str) -> None:
    assert not JsonValue(key=key).is_in(ENERGY)
    with pytest.raises(ValueError, match="the answer has no"):
        JsonValue(key=key).to_value(ENERGY, NUMBER)


def test_what_is_put_is_found() -> None:
    shown: dict[str, object] = {}
    for key, value in (("a.Power.1", 7), ("a.Power.0", 41), (key_of("b", "PM2.5"), 4.5), ("c.0.d", 1)):
        put(shown, key, value)
        assert JsonValue(key=key).find(shown) == value
    assert shown == {"a": {"Power": [41, 7]}, "b": {"PM2.5": 4.5}, "c": [{"d": 1}]}


@pytest.mark.parametrize(
    ("answer", "left_s"),
    [
        ({"state": "opening", "move_timeout": 12}, 12),
        ({"state": "closing"}, 60),
        ({"state": "closing", "move_timeout": 0}, 60),
        ({"state": "open"}, 0),
        ({}, None),
    ],
)
def test_how_long_a_device_may_still_move(answer: dict[str, object], left_s: float | None) -> None:
    moving = Moving(key="state", values=("opening", "closing"), time_key="move_timeout")
    assert JsonValue(key="pos", moving=moving).moving_s(answer) == left_s
    assert JsonValue(key="pos").moving_s(answer) is None


@pytest.mark.parametrize(("raw", "value"), [("21.3", 21.3), ("-5", -5), (7, 7)])
def test_numbers_may_be_text(raw: object, value: float) -> None:
    assert JsonValue().to_value(raw, NUMBER) == value


@pytest.mark.parametrize("raw", ["unavailable", "", "nan", "inf", True, None, [1]])
def test_what_is_no_number(raw: object) -> None:
    with pytest.raises(ValueError, match="no number"):
        JsonValue().to_value(raw, NUMBER)


def test_null_may_stand_for_a_value() -> None:
    place = JsonValue(key="brightness", when_null=0)
    assert (place.to_value({"brightness": None}, NUMBER), place.to_value({"brightness": 3}, NUMBER)) == (0, 3)
    with pytest.raises(ValueError, match="the answer has no brightness"):
        place.to_value({}, NUMBER)
