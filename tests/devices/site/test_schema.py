"""Values of a site: steps of the device itself."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from devices.driver import reading_of
from devices.site.schema import DataSchema

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
