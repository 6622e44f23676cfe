"""Named colors as lights take them and show them: hue and saturation, x and y of CIE 1931, or red, green and blue.

Source: IEC 61966-2-1 (sRGB: its gamma and its matrix to XYZ, white point D65); zigbee2mqtt, "Lights"; Tasmota,
`HSBColor`; Shelly Gen2 Device API, "RGB"; Homie 4 and 5, "Color".
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import Any, Literal

Space = Literal["hs", "xy", "rgb", "hsb", "homie_rgb", "homie_hsv", "homie5_rgb", "homie5_hsv", "homie5_xyz"]
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
KINDS = {"hs", "xy", "rgb", "hsb", "hsv", "xyz"}
KEYS = {"hs": ("hue", "saturation"), "xy": ("x", "y")}
_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def color_of(name: str, space: Space) -> Any:
    """Return what a light takes for a color by name.

    Args:
        name: of the color.
        space: hs is an object of degrees and percent, xy one of x and y to four decimals, rgb a list of 0 to 255. The
            others are text with commas: hsb without its third part, so that Tasmota keeps its brightness; homie_hsv
            and homie_rgb as Homie 4 has them, which hold the full brightness; homie5 with their own name before.
    """
    hue, saturation = HUES[name]
    kind = space.rpartition("_")[2]
    values: Sequence[float] = (hue, saturation)
    if kind == "rgb":
        values = [round(part * 255) for part in colorsys.hsv_to_rgb(hue / 360, saturation / 100, 1)]
    elif kind == "hsv":
        values = (hue, saturation, 100)
    elif kind in {"xy", "xyz"}:
        values = _xy(hue, saturation)
    if space in KEYS:
        return dict(zip(KEYS[space], values, strict=True))
    if space == "rgb":
        return values
    return ",".join([*([kind] if space.startswith("homie5") else []), *map(str, values)])


def name_of(shown: Any, space: Space) -> str:
    """Return the name of the nearest color. Raises ValueError if a light shows no such color."""
    kind = space.rpartition("_")[2]
    try:
        parts: Sequence[Any] = shown
        if space in KEYS:
            parts = [shown[key] for key in KEYS[space]]
        elif isinstance(shown, str):
            parts = shown.split(",")
            if space.startswith("homie5"):  # which shows any that it has, and says which
                kind, *parts = parts
        first, second, *rest = (float(part) for part in parts)
        if kind == "rgb":
            hue, saturation, level = colorsys.rgb_to_hsv(first, second, rest[0])
            first, second = (hue * 360, saturation * 100) if level else (math.nan, math.nan)  # black is no color
        if kind not in KINDS or not math.isfinite(first + second):
            raise ValueError(kind)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        what = f"with {' and '.join(KEYS[space])}" if space in KEYS else f"as {space}"
        raise ValueError(f"{str(shown)[:40]!r} is no color {what}") from error
    is_xy = kind in {"xy", "xyz"}
    return min(HUES, key=lambda name: math.dist(_point(first, second, is_xy), _point(*_known(name, is_xy), is_xy)))


def _known(name: str, is_xy: bool) -> tuple[float, float]:
    return _xy(*HUES[name]) if is_xy else HUES[name]


def _point(first: float, second: float, is_xy: bool) -> tuple[float, float]:
    """Return a place in a plane where near means alike: hues lie on a circle."""
    if is_xy:
        return first, second
    return second * math.cos(math.radians(first)), second * math.sin(math.radians(first))


def _xy(hue: float, saturation: float) -> tuple[float, float]:
    linear = [_linear(part) for part in colorsys.hsv_to_rgb(hue / 360, saturation / 100, 1)]
    x, y, z = (sum(weight * part for weight, part in zip(row, linear, strict=True)) for row in _TO_XYZ)
    return round(x / (x + y + z), 4), round(y / (x + y + z), 4)


def _linear(part: float) -> float:
    return float(((part + 0.055) / 1.055) ** 2.4) if part > 0.04045 else part / 12.92
