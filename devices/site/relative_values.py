"""Values that are named by what they are now, or by their range: "a bit more", "half", "twice as much"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from devices.site.action import UNLESS_0, Action
from devices.site.nearest import nearest
from devices.site.schema import DataSchema, Value

A_BIT, SOME, MUCH = 1, 2, 4  # in usual steps; half as many where there are only a few
FEW = 5
NICE = (1, 2, 5)
LEAST = "the least"


@dataclass(frozen=True)
class Way:
    """A way to name a value: its name in a thought, and the value from what it is now and its schema."""

    words: str
    value: Callable[[float, DataSchema], float]


def usual_step(schema: DataSchema) -> float:
    """Return by how much "a bit" changes a value: a tenth of its range, rounded to 1, 2 or 5 of a power of ten."""
    assert schema.minimum is not None and schema.maximum is not None
    tenth = (schema.maximum - schema.minimum) / 10
    power = 10.0 ** math.floor(math.log10(tenth)) if tenth > 0 else 1.0
    nice = max((one * power for one in (*NICE, 10) if one * power <= tenth * 1.01), default=tenth)
    least = least_step(schema)
    return max(least, round(nice / least) * least)


def _share(share: float) -> Callable[[float, DataSchema], float]:
    return lambda now, schema: (schema.minimum or 0) + share * ((schema.maximum or 0) - (schema.minimum or 0))


def _by_steps(steps: int) -> Callable[[float, DataSchema], float]:
    def moved(now: float, schema: DataSchema) -> float:
        if schema.levels and abs(steps) == A_BIT:
            level = schema.next_value(now, up=steps > 0)
            return now if level is None else level
        step = usual_step(schema)
        is_short = ((schema.maximum or 0) - (schema.minimum or 0)) / step <= FEW
        return now + (math.ceil(abs(steps) / 2) if is_short else abs(steps)) * math.copysign(step, steps)

    return moved


def _least(now: float, schema: DataSchema) -> float:
    """Return the least value that is something: of a bare number such as a fan's speed, 0 is off."""
    del now
    least = schema.minimum or 0
    return least + 1 if least == 0 and schema.type == "integer" and not schema.unit else least


WAYS = {  # by the key of finetune/asks
    "max": Way("the most", _share(1)),
    "off": Way("off", _share(0)),
    "min": Way(LEAST, _least),
    "half": Way("half", _share(0.5)),
    "quarter": Way("a quarter", _share(0.25)),
    "three_quarters": Way("three quarters", _share(0.75)),
    "third": Way("a third", _share(1 / 3)),
    "two_thirds": Way("two thirds", _share(2 / 3)),
    "more": Way("more", _by_steps(SOME)),
    "less": Way("less", _by_steps(-SOME)),
    "hints_more": Way("more", _by_steps(SOME)),
    "hints_less": Way("less", _by_steps(-SOME)),
    "a_bit_more": Way("a bit more", _by_steps(A_BIT)),
    "a_bit_less": Way("a bit less", _by_steps(-A_BIT)),
    "much_more": Way("much more", _by_steps(MUCH)),
    "much_less": Way("much less", _by_steps(-MUCH)),
    "double": Way("twice", lambda now, schema: 2 * now),
    "halve": Way("half of it", lambda now, schema: now / 2),
}


def wished_values(now: float, schema: DataSchema, *, is_off_at_0: bool = False) -> dict[str, Value]:
    """Return the value that the words of each way name, where a number is `now`.

    Of a device that is off at 0, the least is what is not off: a light that is dimmed all the way still burns.
    """
    found = {way.words: allowed(schema, way.value(now, schema)) for way in WAYS.values()}
    if is_off_at_0 and found[LEAST] == 0:
        found[LEAST] = allowed(schema, least_step(schema))
    return found


def is_off_at_0(action: Action, argument: str) -> bool:
    """Return whether an argument also switches its device: on above 0, and off at 0."""
    return f"${argument} > 0" in action.writes.values()


def allowed(schema: DataSchema, value: float) -> Value:
    """Return the nearest value that a schema allows."""
    assert schema.minimum is not None and schema.maximum is not None
    return nearest(value, schema.minimum, schema.maximum, least_step(schema))


def least_step(schema: DataSchema) -> float:
    """Return the step between values that a schema allows, and the wire format can write."""
    return schema.step or (1.0 if schema.type == "integer" else 0.1)


def written_property(action: Action, argument: str) -> str:
    """Return the property that an argument is written to as it is, or ""."""
    written = (one for one, value in action.writes.items() if value in (f"${argument}", f"${argument} {UNLESS_0}"))
    return next(written, "")
