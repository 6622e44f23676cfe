"""Values of a site: steps of the device itself, and levels."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from devices.driver import reading_of
from devices.site.describe import value_text
from devices.site.device import Device
from devices.site.schema import DataSchema
from edge_agent.wire.contract import argument_text
from tests.den import den

HALVES = DataSchema(type="number", minimum=5, maximum=30, step=0.5)
TENTHS = DataSchema(type="number", minimum=-1, maximum=1, step=0.1)


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        (HALVES, 20.5, ""),
        (HALVES, 5, ""),
        (HALVES, 20.3, "20.3 is not in steps of 0.5"),
        (HALVES, 30.5, "30.5 is outside 5 to 30"),
        (TENTHS, 0.3, ""),  # 0.3 is not three times 0.1 in floating point
        (TENTHS, -0.7, ""),
        (TENTHS, 0.35, "0.35 is not in steps of 0.1"),
    ],
)
def test_a_value_is_in_steps(schema: DataSchema, value: float, problem: str) -> None:
    assert schema.problem_with(value) == problem


def test_a_reading_need_not_be_in_steps() -> None:
    """Somebody may have set the device by another way; what it shows is so all the same."""
    assert reading_of(lambda: 20.3, HALVES, 1.0).quality == "good"
    assert reading_of(lambda: 30.3, HALVES, 1.0).quality == "bad"


def test_a_step_is_json_schemas_multiple() -> None:
    assert HALVES.json_schema()["multipleOf"] == 0.5
    assert DataSchema(type="integer", minimum=0, maximum=9, step=3).json_schema()["multipleOf"] == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "number", "minimum": 1, "maximum": 9, "step": 2},
        {"type": "integer", "minimum": 0, "maximum": 9, "step": 0.5},
        {"type": "boolean", "step": 1},
        {"type": "number", "minimum": 0, "maximum": 9, "step": 0},
    ],
)
def test_a_step_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="step"):
        DataSchema(**wrong)


SPEED = DataSchema(type="integer", minimum=0, maximum=10, levels={"low": 2, "half": 5, "high": 9})


def test_a_level_is_said_with_its_number_and_is_in_what_the_model_reads() -> None:
    assert (value_text(SPEED, 5), value_text(SPEED, 6)) == ("5 (half)", "6")
    assert argument_text("speed", SPEED) == "speed: 0..10 (low 2, half 5, high 9)"
    assert SPEED.json_schema()["description"] == "low 2, half 5, high 9"
    assert argument_text("target_c", HALVES) == "target_c: 5..30 (step 0.5)"


@pytest.mark.parametrize(
    ("schema", "value", "more", "less"),
    [
        (SPEED, 2, 5, None),
        (SPEED, 6, 9, 5),
        (SPEED, 9, None, 5),
        (HALVES, 20, 20.5, 19.5),
        (HALVES, 20.3, 20.5, 20),  # set by another way, between the steps
        (HALVES, 30, None, 29.5),
        (TENTHS, 0.3, 0.4, 0.2),
    ],
)
def test_a_bit_more_is_the_next_level_or_one_step(
    schema: DataSchema, value: float, more: float | None, less: float | None
) -> None:
    assert (schema.next_value(value, up=True), schema.next_value(value, up=False)) == (more, less)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 3, "levels": {"high": 4}}, "level high: 4 is outside 0 to 3"),
        (
            {"type": "number", "minimum": 0, "maximum": 3, "step": 0.5, "levels": {"half": 1.2}},
            "level half: 1.2 is not",
        ),
        ({"type": "boolean", "levels": {"low": 1}}, "levels and states are words for numbers"),
        ({"type": "string", "enum": ("a",), "states": {"low": 1}}, "levels and states are words for numbers"),
        ({"type": "integer", "minimum": 0, "maximum": 3, "levels": {"a|b": 1}}, "must be one line"),
    ],
)
def test_levels_that_make_no_sense_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSchema(**wrong)


def test_an_argument_has_the_levels_of_what_it_sets_and_no_others() -> None:
    fan = den().devices["fan"]
    assert (
        fan.actions["set"].input["speed"].levels == fan.properties["speed"].levels == {"low": 1, "medium": 2, "high": 3}
    )
    action = fan.actions["set"].model_dump() | {"input": {"speed": SPEED.model_dump() | {"levels": {"low": 3}}}}
    with pytest.raises(ValidationError, match="action set: level low is 3, and 1 of speed"):
        Device(**fan.model_dump() | {"actions": {"set": action}})
