"""Named colors as lights take them and show them: hue and saturation, or x and y of CIE 1931.

Source: IEC 61966-2-1 (sRGB: its gamma and its matrix to XYZ, white point D65).
"""

from __future__ import annotations

import colorsys
import math
from typing import Any, Literal

Space = Literal["hs", "xy"]
HUES = {  # degrees and percent
    "white": (0, 0),
    "red": (0, 100),
    "orange": (30, 100),
    "yellow": (55, 100),
    "green": (120, 100),
    "cyan": (180, 100),
    "blue": (240, 100),
    "purple": (275, 100),
    "pink": (320, 60),
}
KEYS = {"hs": ("hue", "saturation"), "xy": ("x", "y")}
_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def color_of(name: str, space: Space) -> dict[str, float]:
    """Return what a light takes for a color by name: degrees and percent, or x and y to four decimals."""
    values = HUES[name] if space == "hs" else _xy(*HUES[name])
    return dict(zip(KEYS[space], values, strict=True))


def name_of(shown: Any, space: Space) -> str:
    """Return the name of the nearest color. Raises ValueError if a light shows no such color."""
    try:
        first, second = (float(shown[key]) for key in KEYS[space])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(shown)[:40]!r} is no color with {' and '.join(KEYS[space])}") from error
    return min(HUES, key=lambda name: math.dist(_point(first, second, space), _point(*_known(name, space), space)))


def _known(name: str, space: Space) -> tuple[float, float]:
    return HUES[name] if space == "hs" else _xy(*HUES[name])


def _point(first: float, second: float, space: Space) -> tuple[float, float]:
    """Return a place in a plane where near means alike: hues lie on a circle."""
    if space == "xy":
        return first, second
    return second * math.cos(math.radians(first)), second * math.sin(math.radians(first))


def _xy(hue: float, saturation: float) -> tuple[float, float]:
    linear = [_linear(part) for part in colorsys.hsv_to_rgb(hue / 360, saturation / 100, 1)]
    x, y, z = (sum(weight * part for weight, part in zip(row, linear, strict=True)) for row in _TO_XYZ)
    return round(x / (x + y + z), 4), round(y / (x + y + z), 4)


def _linear(part: float) -> float:
    return float(((part + 0.055) / 1.055) ** 2.4) if part > 0.04045 else part / 12.92
