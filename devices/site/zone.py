"""Keep-out zones: boxes that a straight way must not touch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from devices.site.schema import Plain
from devices.yaml_file import Strict


class Zone(Strict):
    """Where an action must not bring a device, nor pass through: all arguments named in `box` within their bounds."""

    title: Plain
    box: dict[str, tuple[float, float]] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _take_pairs(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("box"), dict):
            return raw | {
                "box": {axis: tuple(pair) if isinstance(pair, list) else pair for axis, pair in raw["box"].items()}
            }
        return raw

    def is_crossed_by(self, start: Mapping[str, float], end: Mapping[str, float]) -> bool:
        """Return whether the straight way between two places touches the box; both have all of its axes.

        Source: the slab method, Kay and Kajiya 1986.
        """
        enter, leave = 0.0, 1.0
        for axis, (low, high) in self.box.items():
            here, gap = start[axis], end[axis] - start[axis]
            if gap == 0:
                if not low <= here <= high:
                    return False
                continue
            first, last = sorted(((low - here) / gap, (high - here) / gap))
            enter, leave = max(enter, first), min(leave, last)
        return enter <= leave
