"""Values that are named by what they are now, or by their range."""

from __future__ import annotations

import pytest

from devices.site.relative_values import WAYS, allowed, usual_step, wished_values
from devices.site.schema import DataSchema

PERCENT = DataSchema(type="integer", minimum=0, maximum=100, unit="percent")
SPEED = DataSchema(type="integer", minimum=0, maximum=3)
DEGREES = DataSchema(type="number", minimum=5, maximum=30, step=0.5, unit="degrees")


@pytest.mark.parametrize(
    ("schema", "now", "way", "value"),
    [
        (PERCENT, 40, "a bit more", 50),
        (PERCENT, 40, "much less", 0),
        (PERCENT, 40, "two thirds", 67),
        (PERCENT, 40, "the least", 0),
        (PERCENT, 40, "twice", 80),
        (SPEED, 3, "the least", 1),
        (SPEED, 3, "off", 0),
        (SPEED, 1, "more", 2),
        (SPEED, 3, "half of it", 2),
        (DEGREES, 20.5, "a bit less", 18.5),
        (DEGREES, 29.5, "more", 30),
    ],
)
def test_ways_to_name_a_value(schema: DataSchema, now: float, way: str, value: float) -> None:
    assert wished_values(now, schema)[way] == value


def test_the_least_of_what_is_off_at_0_is_not_off() -> None:
    found = wished_values(40, PERCENT, is_off_at_0=True)
    assert found["the least"] == 1 and found["off"] == 0
    assert wished_values(40, PERCENT.model_copy(update={"minimum": 5}), is_off_at_0=True)["the least"] == 5


def test_every_way_names_a_value_that_is_allowed() -> None:
    for schema in (PERCENT, SPEED, DEGREES):
        found = wished_values(schema.minimum or 0, schema)
        assert found.keys() == {way.words for way in WAYS.values()}
        assert not any(schema.problem_with(value) for value in found.values())


def test_steps() -> None:
    assert (usual_step(PERCENT), usual_step(SPEED), usual_step(DEGREES)) == (10, 1, 2)
    assert allowed(DEGREES, 20.26) == 20.5
