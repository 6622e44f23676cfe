"""Values inside JSON, as HTTP and MQTT devices show and take them: keys, words, scales, colors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import Field, model_validator

from devices.drivers.colors import Space, color_of, name_of
from devices.site.schema import DataSchema, Value
from devices.site.site import find_name
from devices.yaml_file import Strict

Scalar = bool | int | float | str


class JsonValue(Strict):
    """Where a value is in JSON and how it is written.

    Words are known in any capitals, since devices and their firmware do not agree on them.

    Attributes:
        key: with a dot for each level; without a key the whole of the JSON is the value.
        words: what stands for false and true, of any type: a contact sensor says true when it is closed.
        values: for a word of the property, what the device says for it.
        color: the property is a color by name, the device has hue and saturation (hs), or x and y (xy).
        scale: value = raw * scale + offset.
        offset: see scale.
        raw_step: the device takes multiples of it only.
    """

    key: str = ""
    words: tuple[Scalar, Scalar] | None = Field(default=None, strict=False)
    values: dict[str, Scalar] = Field(default_factory=dict)
    color: Space | None = None
    scale: float = 1.0
    offset: float = 0.0
    raw_step: float = Field(default=0.0, ge=0)

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

    @property
    def _path(self) -> list[str]:
        return self.key.split(".") if self.key else []

    def is_in(self, answer: Any) -> bool:
        """Return whether an answer has the key."""
        for part in self._path:
            if not isinstance(answer, dict) or part not in answer:
                return False
            answer = answer[part]
        return True

    def find(self, answer: Any) -> Any:
        """Return what is at the key, which the answer has."""
        for part in self._path:
            answer = answer[part]
        return answer

    def to_value(self, answer: Any, schema: DataSchema) -> Value:
        """Return the property's value in an answer.

        Raises:
            ValueError: the answer has no such key, or another type of value there.
        """
        if not self.is_in(answer):
            raise ValueError(f"the answer has no {self.key}")
        raw = self.find(answer)
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
        elif isinstance(raw, int | float) and not isinstance(raw, bool):
            value = raw * self.scale + self.offset
            return round(value) if schema.type == "integer" else float(value)
        raise ValueError(f"{self.key or 'the answer'} is {str(raw)[:40]!r}, no {schema.type}")

    def _word_of(self, raw: Any) -> str | None:
        """Return the word of `values` for which the device says this, or None."""
        if not isinstance(raw, bool | int | float | str):
            return None
        said = {text_of(other): word for word, other in self.values.items()}
        found = find_name(text_of(raw), said)
        return None if found is None else said[found]

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


def put(shown: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key, making the levels on the way."""
    *folders, last = key.split(".")
    for folder in folders:
        shown = shown.setdefault(folder, {})
    shown[last] = value
