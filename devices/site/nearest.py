"""The nearest number in steps between two bounds. Imports next to nothing: the engine's process has it too."""

from __future__ import annotations

import math


def nearest(value: float, minimum: float, maximum: float, step: float) -> int | float:
    """Return the multiple of a step nearest to a value, of two the upper, within bounds; whole ones as integers."""
    low, high = math.ceil(minimum / step - 1e-9), math.floor(maximum / step + 1e-9)
    found = round(min(max(math.floor(value / step + 0.5), low), high) * step, 6)
    return int(found) if float(found).is_integer() else found
