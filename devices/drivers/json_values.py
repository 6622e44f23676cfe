"""Values inside JSON, as HTTP and MQTT devices show and take them: keys, words, scales, colors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, model_validator

from devices.drivers.colors import Space, color_of, name_of
from devices.site.schema import DataSchema, Value
from devices.site.site import find_name
from devices.yaml_file import Strict

Scalar = bool | int | float | str
Secrets = dict[str, Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]]  # by key, variables of the environment
ANY = "*"
_NOTHING = object()


class Moving(Strict):
    """Where a device tells that it is on its way: with one of `values` at `key`.

    Attributes:
        key: beside the value that it moves to.
        values: any of them means that it moves.
        time_key: where it says how many seconds it may take.
        time_s: as long, if it does not say.
    """

    key: str
    values: tuple[str | int, ...] = Field(strict=False)
    time_key: str = ""
    time_s: float = Field(default=60.0, gt=0)

    def time_left_s(self, answer: Any) -> float | None:
        """Return how long the device may still move, 0 if it stands still, None if it does not tell."""
        if (told := _at(answer, self.key)) is _NOTHING:
            return None
        if told not in self.values:
            return 0.0
        time_s = _at(answer, self.time_key) if self.time_key else None
        return float(time_s) if isinstance(time_s, int | float) and time_s > 0 else self.time_s


class JsonValue(Strict):
    r"""Where a value is in JSON and how it is written.

    Words are known in any capitals, since devices and their firmware do not agree on them. Numbers may be text.

    Attributes:
        key: with a dot for each level, a number for a place in a list (`ENERGY.Power.0`), and `\.` for a dot of a name;
            without a key the whole of the JSON is the value.
        words: what stands for false and true, of any type: a contact sensor says true when it is closed.
        values: for a word of the property, what the device says for it.
        alike: for what the device also says, the one of its words that it means: `{standby: "off"}`; ANY stands for all
            that is not named.
        color: the property is a color by name; the device has hue and saturation (hs), x and y (xy), red, green and
            blue (rgb), or one of the texts that `color_of` makes.
        scale: value = raw * scale + offset.
        offset: see scale.
        raw_step: the device takes multiples of it only.
        moving: where the device tells that it is on its way.
        when_null: the value where the device says null: a lamp that is off may have no brightness.
    """

    key: str = ""
    words: tuple[Scalar, Scalar] | None = Field(default=None, strict=False)
    values: dict[str, Scalar] = Field(default_factory=dict)
    alike: dict[str, Scalar] = Field(default_factory=dict)
    color: Space | None = None
    scale: float = 1.0
    offset: float = 0.0
    raw_step: float = Field(default=0.0, ge=0)
    moving: Moving | None = None
    when_null: bool | int | float | str | None = None

    @model_validator(mode="after")
    def _require_scale(self) -> JsonValue:
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        for texts in (self._texts(self.words or ()), self._texts(self.values.values())):
            if len(set(texts)) < len(texts):
                raise ValueError(f"one word cannot stand for two values: {', '.join(texts)}")
        return self

    @staticmethod
    def _texts(words: Iterable[Scalar]) -> list[str]:
        return [text_of(word) for word in words]

    def is_in(self, answer: Any) -> bool:
        """Return whether an answer has the key."""
        return _at(answer, self.key) is not _NOTHING

    def find(self, answer: Any) -> Any:
        """Return what is at the key, which the answer has."""
        return _at(answer, self.key)

    def to_value(self, answer: Any, schema: DataSchema) -> Value:
        """Return the property's value in an answer.

        Raises:
            ValueError: the answer has no such key, or another type of value there.
        """
        if (raw := _at(answer, self.key)) is _NOTHING:
            raise ValueError(f"the answer has no {self.key}")
        if raw is None and self.when_null is not None:
            return self.when_null
        raw = self._meant(raw)
        if schema.type == "boolean":
            if self.words is not None and isinstance(raw, bool | int | float | str):
                texts = self._texts(self.words)
                if (word := find_name(text_of(raw), texts)) is not None:
                    return word == texts[1]
            if isinstance(raw, bool) and not any(isinstance(word, bool) for word in self.words or ()):
                return raw
        elif schema.type == "string":
            if self.color:
                return name_of(raw, self.color)
            if (word := self._word_of(raw)) is not None:
                return word
            if isinstance(raw, str):
                return find_name(raw, schema.enum or ()) or raw
        elif (number := _number(raw)) is not None:
            value = number * self.scale + self.offset
            return round(value) if schema.type == "integer" else float(value)
        raise ValueError(f"{self.key or 'the answer'} is {str(raw)[:40]!r}, no {schema.type}")

    def _meant(self, raw: Any) -> Any:
        """Return which of the device's words is meant by what it says."""
        if not self.alike or not isinstance(raw, str):
            return raw
        if (name := find_name(raw, self.alike)) is not None:
            return self.alike[name]
        is_known = find_name(raw, self._texts([*(self.words or ()), *self.values.values()])) is not None
        return raw if is_known else self.alike.get(ANY, raw)

    def _word_of(self, raw: Any) -> str | None:
        """Return the word of `values` for which the device says this, or None."""
        if not isinstance(raw, bool | int | float | str):
            return None
        said = {text_of(other): word for word, other in self.values.items()}
        found = find_name(text_of(raw), said)
        return None if found is None else said[found]

    def moving_s(self, answer: Any) -> float | None:
        """Return how long the device may still be on its way, as `Moving.time_left_s`."""
        return self.moving.time_left_s(answer) if self.moving else None

    def to_raw(self, value: Value) -> Any:
        """Return what to send for a value of the property."""
        if isinstance(value, bool):
            return self.words[int(value)] if self.words else value
        if isinstance(value, str):
            return color_of(value, self.color) if self.color else self.values.get(value, value)
        raw = (value - self.offset) / self.scale
        raw = round(round(raw / self.raw_step) * self.raw_step if self.raw_step else raw, 9)  # 9: 127, not 126.999...
        return int(raw) if raw == int(raw) else raw


def text_of(raw: Scalar) -> str:
    """Return a value of any type as text, as JSON has it: devices send "1" and 1, "true" and true for the same."""
    return raw if isinstance(raw, str) else json.dumps(int(raw) if isinstance(raw, float) and raw == int(raw) else raw)


def path_of(key: str) -> list[str]:
    """Return the levels of a key."""
    return [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", key)] if key else []


def key_of(*path: str) -> str:
    """Return the key of levels; dots in their names are marked."""
    return ".".join(part.replace(".", "\\.") for part in path)


def _at(answer: Any, key: str) -> Any:
    for part in path_of(key):
        if isinstance(answer, dict) and part in answer:
            answer = answer[part]
        elif isinstance(answer, list) and part.isdecimal() and int(part) < len(answer):
            answer = answer[int(part)]
        else:
            return _NOTHING
    return answer


def _number(raw: Any) -> float | int | None:
    """Return a finite number that is one, or is text; None for anything else."""
    try:
        number = float(raw) if isinstance(raw, str) else raw
    except ValueError:
        return None
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return number if is_number and math.isfinite(number) else None


def put(shown: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a key, making the levels and lists on the way."""
    path = path_of(key) or [""]
    level: Any = shown
    for part, following in pairwise(path):
        level = _put(level, part, [] if following.isdecimal() else {}, keep=True)
    _put(level, path[-1], value, keep=False)


def _put(level: Any, part: str, value: Any, *, keep: bool) -> Any:
    """Put a value into an object or a list, unless there is one to keep; return what is there then."""
    if isinstance(level, dict):
        level[part] = level.get(part, value) if keep else value
        return level[part]
    place = int(part)
    level += [None] * (place + 1 - len(level))
    level[place] = value if level[place] is None or not keep else level[place]
    return level[place]
