"""Words in answers: what they stand for does not hang on capitals, where two words do not differ by them alone."""

from __future__ import annotations

import pytest

from devices.drivers.json_values import JsonValue
from devices.site.schema import DataSchema, Value

BOOLEAN, MODE = DataSchema(type="boolean"), DataSchema(type="string", enum=("eco", "comfort"))


@pytest.mark.parametrize(("raw", "value"), [("ON", True), ("on", True), ("Off", False)])
def test_words_for_true_and_false(raw: str, value: bool) -> None:
    assert JsonValue(words=("OFF", "ON")).to_value(raw, BOOLEAN) is value


def test_words_that_differ_by_capitals_alone_are_kept_apart() -> None:
    address = JsonValue(words=("A", "a"))
    assert (address.to_value("A", BOOLEAN), address.to_value("a", BOOLEAN)) == (False, True)


@pytest.mark.parametrize("raw", ["auto", 1, None, ["ON"]])
def test_another_word_is_none(raw: object) -> None:
    with pytest.raises(ValueError, match="no boolean"):
        JsonValue(words=("OFF", "ON")).to_value(raw, BOOLEAN)


@pytest.mark.parametrize(("raw", "value"), [("eco", "eco"), ("ECO", "eco"), ("Party", "Party")])
def test_words_of_a_list(raw: str, value: Value) -> None:
    assert JsonValue().to_value(raw, MODE) == value
