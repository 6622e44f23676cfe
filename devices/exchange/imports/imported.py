"""A site in the making, with the account of what became of every feature of its source.

Titles and names come from outside: they become plain words of a site file, which a person reads before using it.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from devices.errors import UsageError
from devices.site.action import TAKEN
from devices.site.describe import plain_text
from devices.site.schema import DataSchema

LONGEST_NAME = 40
LONGEST_LINE = 120  # of what a site file has in one line
ENTRY_COLUMN = 6  # of a property or action, where its comment begins too
NAMED = 3  # devices that a line names before it counts the rest
RESERVED = {"area", "except", *TAKEN}
WIDEST = 100000  # of a number without limits that is only read
NO_PLACE = "a site has no place for it"
NO_WORDS = "its values are no words that a site can have"
NO_VALUE = "it had no value"
FREE_TEXT = "free text"
OTHER_COLOR = "a site has no kind for such a color"
ONLY_WRITTEN = "it can only be written, so that nobody knows whether it was done"
EVENT = "an event: it happens, and has no state to read"
TWICE = "another feature says the same"
ADDRESS = re.compile(r"0x[0-9a-f]+|[0-9a-f]{2}(:[0-9a-f]{2}){5,7}", re.IGNORECASE)
UNITS = {
    "%": "percent",
    "°C": "degrees",
    "°F": "degrees Fahrenheit",
    "lx": "lux",
    "W": "watts",
    "kWh": "kilowatt hours",
    "V": "volts",
    "A": "amperes",
    "hPa": "hectopascals",
    "dB": "decibels",
    "s": "seconds",
    "min": "minutes",
    "m": "meters",
    "°": "degrees",
}


class Foreign(BaseModel):
    """A part of another's file: keys that are not ours to know are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


@dataclass
class Feature:
    """One feature of the source, and what became of it: until somebody takes it, it is left out.

    Attributes:
        device: what the source calls the device; "" where it lists features only.
        name: of the feature.
        reason: why it is left out; "" once it is taken.
    """

    device: str
    name: str
    reason: str = NO_PLACE

    def take(self) -> None:
        """Note that the site has it."""
        self.reason = ""

    def leave(self, reason: str) -> None:
        """Note why the site does not have it."""
        self.reason = reason


@dataclass
class Imported:
    """A site's devices and drivers as its file has them, the account of features, and what else there is to say."""

    devices: dict[str, Any] = field(default_factory=dict)
    drivers: dict[str, Any] = field(default_factory=dict)
    floors: dict[str, Any] = field(default_factory=dict)
    areas: dict[str, Any] = field(default_factory=dict)
    features: list[Feature] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    guesses: dict[tuple[str, str, str], str] = field(default_factory=dict)  # a comment, by device, section and key

    def offer(self, device: str, name: str) -> Feature:
        """Put a feature of the source on the account."""
        feature = Feature(plain_text(device), plain_text(name))  # a terminal shows them
        self.features.append(feature)
        return feature

    def add(self, title: str, noun: str, entry: dict[str, Any], part: str = "") -> str:
        """Take a device; return its name.

        Args:
            title: what the source calls it; an address is no name, so that it is called by its noun and a number.
            noun: what it is, as people say.
            entry: as the site file has it.
            part: which part of the thing it is, such as left.
        """
        base = plain_name(title)
        if ADDRESS.fullmatch(title) or not re.search("[a-z]", base.removeprefix("device")):
            base = self._numbered(plain_name(noun))
        name = plain_name(f"{base} {part}")
        number = 2
        while name in self.devices:
            name, number = f"{plain_name(f'{base} {part}')[: LONGEST_NAME - 4]}_{number}", number + 1
        self.devices[name] = {"title": name.replace("_", " "), **entry}
        return name

    def _numbered(self, noun: str) -> str:
        taken = {re.sub(r"(_\d+)_.*", r"\1", name) for name in self.devices}
        return next(f"{noun}_{number}" for number in range(1, len(taken) + 2) if f"{noun}_{number}" not in taken)

    @property
    def taken(self) -> int:
        """How many features the site has."""
        return sum(not feature.reason for feature in self.features)

    @property
    def left_out(self) -> list[str]:
        """Each kind of feature that was left out, of which devices and why."""
        found: dict[tuple[str, str], list[str]] = {}
        for feature in self.features:
            if feature.reason:
                found.setdefault((feature.name, feature.reason), []).append(feature.device)
        return [f"{name}{_of(devices)}: {why}" for (name, why), devices in found.items()]

    @property
    def counts(self) -> str:
        """How many features there were, were taken and were left out: the last two add up to the first."""
        count, taken = len(self.features), self.taken
        return f"{len(self.devices)} devices; {count} features: {taken} taken, {count - taken} left out"

    def site_file(self, name: str) -> str:
        """Return the site file. Raises UsageError if there is no device to put into it."""
        if not self.devices:
            reasons = "; ".join([*self.left_out, *self.notes])
            raise UsageError(f"there is no device to import: {reasons}")
        text = io.StringIO()
        yaml = YAML(typ="rt", pure=True)
        yaml.width = 200
        root = {"schema": "site/v1", "name": plain_name(name), "title": name.replace("_", " ")}
        parts = {"floors": self.floors, "areas": self.areas, "devices": self.devices}
        laid_out = {key: _laid_out(part) for key, part in parts.items() if part}
        for (device, section, key), text_before in self.guesses.items():
            entries = laid_out["devices"][device][section]
            entries.yaml_set_comment_before_after_key(key, before=text_before, indent=ENTRY_COLUMN)
        yaml.dump(root | {"drivers": self.drivers} | laid_out, text)
        return text.getvalue()


def plain_name(text: str) -> str:
    """Return a text as a name: small letters, digits and underscores, of a length that people can say."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()  # ü becomes u
    words = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")[:LONGEST_NAME].strip("_")
    return words if words[:1].isalpha() else f"device_{words}".rstrip("_")


def part_name(text: str) -> str:
    """Return a text as the name of a property, argument or output: not one that every call or result has itself."""
    name = plain_name(text)
    return f"{name}_value" if name in RESERVED else name


def boolean_schema(when_true: str = "on", when_false: str = "off") -> dict[str, Any]:
    """Return the schema of a boolean, with what people say for its values."""
    return {"type": "boolean", "labels": {True: when_true, False: when_false}}


def words_of(values: Sequence[Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the words of an enum, and what the device says for those that are no words with it."""
    words = [str(value) for value in values]
    return words, {word: value for word, value in zip(words, values, strict=True) if not isinstance(value, str)}


def is_plain(schema: dict[str, Any]) -> bool:
    """Return whether a schema from elsewhere may stand in a site: its words are words, and no sentences."""
    try:
        words = DataSchema(**schema).enum or ()
    except ValidationError:
        return False
    return bool(all(word and " " not in word for word in words))


def foreign_problem(error: ValidationError) -> str:
    """Return the field and the problem that pydantic found first in another's file."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _of(devices: list[str]) -> str:
    names = [name for name in Counter(devices) if name]
    more = len(names) - NAMED
    listed = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return f" of {listed}" if listed else ""


def _laid_out(value: Any, depth: int = 0) -> Any:
    """Return devices as people write them: what is deep inside and short on one line."""
    if isinstance(value, dict):
        made: Any = CommentedMap({key: _laid_out(item, depth + 1) for key, item in value.items()})
    elif isinstance(value, list | tuple):
        made = CommentedSeq([_laid_out(item, depth + 1) for item in value])
    else:
        return value
    if isinstance(made, CommentedSeq) or (depth >= 3 and len(str(value)) <= LONGEST_LINE):
        made.fa.set_flow_style()
    return made
