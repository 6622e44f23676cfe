"""Numbers as people say them: "40", "forty percent", "half", "twenty one and a half degrees"."""

from __future__ import annotations

from random import Random

from devices.site.describe import number_text
from devices.site.schema import DataSchema, Value
from edge_agent.wire.spoken_numbers import ONES, number_words

HALF_DEGREE = 0.5
ROUND_SHARE = 0.7  # of round times are said in the larger unit
_ROUND_TIMES = {  # of seconds as minutes, and of minutes as hours
    30: ("half {}", "half a{n} {}"),
    60: ("a{n} {}", "one {}", "1 {}", "a whole {}"),
    90: ("a{n} {} and a half", "one and a half {}s", "1.5 {}s"),
    120: ("two {}s", "2 {}s"),
    180: ("three {}s", "3 {}s"),
    300: ("five {}s", "5 {}s"),
    600: ("ten {}s", "10 {}s"),
    15: ("a quarter of a{n} {}", "quarter of a{n} {}"),
    45: ("three quarters of a{n} {}",),
}
_LARGER = {"seconds": "minute", "minutes": "hour"}
_UNITS = {  # other ways to say a unit; "" leaves it out
    "percent": ("percent", "per cent", "%", ""),
    "degrees": ("degrees", "degrees", "°", "°C", "degrees celsius", ""),
    "minutes": ("minutes", "minutes", "min", "mins"),
    "seconds": ("seconds", "seconds", "sec", "s"),
    "euros": ("euros", "euros", "€", "euro"),
    "millimetres": ("millimetres", "mm", ""),
}


def spoken_number(value: float, rng: Random) -> str:
    """Return a number in digits or in words."""
    if rng.random() < 0.6 or value < 0:
        return number_text(value)
    whole, tenths = divmod(round(value * 10), 10)
    if tenths == 0:
        words = number_words(whole)
    elif tenths == 5 and rng.random() < 0.5:
        words = f"{number_words(whole)} and a half"
    else:
        words = f"{number_words(whole)} point {ONES[tenths]}"
    return words.replace("-", " ") if rng.random() < 0.5 else words


def round_times(schema: DataSchema) -> list[int]:
    """Return what people say in the larger unit, if a schema is in seconds or minutes."""
    return list(_ROUND_TIMES) if schema.unit in _LARGER else []


def spoken_value(schema: DataSchema, value: Value, rng: Random) -> str:
    """Return an argument's value as it is said, with its unit or without."""
    if isinstance(value, bool):
        return schema.labels.get(value, "on" if value else "off")
    if isinstance(value, str):
        return value.replace("_", " ")
    if schema.unit in _LARGER and (forms := _ROUND_TIMES.get(int(value))) and rng.random() < ROUND_SHARE:
        unit = _LARGER[schema.unit]
        return rng.choice(forms).format(unit, n="n" if unit == "hour" else "")
    if value == HALF_DEGREE and schema.unit == "degrees":
        return rng.choice(("half a degree", "half a degree", "0.5 degrees", "half a °"))
    number = spoken_number(value, rng)
    unit = rng.choice(_UNITS.get(schema.unit, (schema.unit, "")))
    if value == 1 and unit in ("degrees", "minutes", "seconds", "euros", "millimetres"):
        unit = unit[:-1]
    has_digits = number[-1].isdigit()
    return f"{number}{unit}" if unit in ("%", "°", "°C", "€", "s") and has_digits else f"{number} {unit}".rstrip()
