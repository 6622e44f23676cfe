"""Values inside JSON, as HTTP and MQTT devices show and take them: keys, words for true and false, scales."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from devices.site.schema import DataSchema, Value
from devices.site.site import find_name
from devices.yaml_file import Strict


class JsonValue(Strict):
    """Where a value is in JSON and how it is written. value = raw * scale + offset; `words` stand for false and true.

    Words are known in any capitals, since devices and their firmware do not agree on them.

    `key` has a dot for each level; without a key the whole of the JSON is the value.
    """

    key: str = ""
    words: tuple[str, str] | None = Field(default=None, strict=False)
    scale: float = 1.0
    offset: float = 0.0

    @model_validator(mode="after")
    def _require_scale(self) -> JsonValue:
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        return self

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
            if self.words and isinstance(raw, str) and (word := find_name(raw, self.words)):
                return word == self.words[1]
            if isinstance(raw, bool):
                return raw
        elif schema.type == "string":
            if isinstance(raw, str):
                return find_name(raw, schema.enum or ()) or raw
        elif isinstance(raw, int | float) and not isinstance(raw, bool):
            value = raw * self.scale + self.offset
            return round(value) if schema.type == "integer" else float(value)
        raise ValueError(f"{self.key or 'the answer'} is {str(raw)[:40]!r}, no {schema.type}")

    def to_raw(self, value: Value) -> Any:
        """Return what to send for a value of the property."""
        if isinstance(value, bool):
            return self.words[int(value)] if self.words else value
        if isinstance(value, str):
            return value
        raw = (value - self.offset) / self.scale
        return int(raw) if raw == int(raw) else raw


def put(shown: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key, making the levels on the way."""
    *folders, last = key.split(".")
    for folder in folders:
        shown = shown.setdefault(folder, {})
    shown[last] = value
