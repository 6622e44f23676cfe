"""A site in the making, with the account of what became of every feature of its source.

Titles and names come from outside: they become plain words of a site file, which a person reads before using it.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from devices.errors import UsageError
from devices.exchange.yaml_patch import Comments, is_same, rendered
from devices.site.action import TAKEN
from devices.site.describe import plain_text
from devices.site.schema import DataSchema, is_multiple
from devices.site.site import join_models, load_models

Model = TypeVar("Model", bound=BaseModel)
THIS_MACHINE = "127.0.0.1"
LONGEST_NAME = 40
SECTIONS = ("drivers", "floors", "areas", "groups", "devices")  # of a site file, that an import makes
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
    """A site's devices and drivers as its file has them, the account of features, and what else there is to say.

    `host` is where the source is that was asked for, such as the MQTT broker.
    """

    devices: dict[str, Any] = field(default_factory=dict)
    drivers: dict[str, Any] = field(default_factory=dict)
    floors: dict[str, Any] = field(default_factory=dict)
    areas: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    features: list[Feature] = field(default_factory=list)
    features_of: dict[str, list[Feature]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    guesses: dict[tuple[str, str, str], str] = field(default_factory=dict)  # a comment, by device, section and key
    host: str = THIS_MACHINE

    def offer(self, device: str, name: str) -> Feature:
        """Put a feature of the source on the account."""
        feature = Feature(plain_text(device), plain_text(name))  # a terminal shows them
        self.features.append(feature)
        return feature

    def add(
        self, title: str, noun: str, entry: dict[str, Any], part: str = "", features: Sequence[Feature] = ()
    ) -> str:
        """Take a device and return its name; "" if nothing says where a property of its models is.

        Args:
            title: what the source calls it; an address is no name, so that it is called by its noun and a number.
            noun: what it is, as people say.
            entry: as the site file has it.
            part: which part of the thing it is, such as left.
            features: those that it has; they are left out if it is.
        """
        named = entry.get("model", [])
        models = join_models([named] if isinstance(named, str) else named, load_models())
        if missing := sorted(models.get("properties", {}).keys() - entry.get("at", {}).keys()):
            for feature in features:
                feature.leave(f"its {', '.join(missing)} is nowhere, without which a site cannot have it")
            self.notes.append(f"{title}: nothing says where its {', '.join(missing)} is")
            return ""
        base = plain_name(title)
        if ADDRESS.fullmatch(title) or not re.search("[a-z]", base.removeprefix("device")):
            base = self._numbered(plain_name(noun))
        name = plain_name(f"{base} {part}")
        number = 2
        while name in self.devices:
            name, number = f"{plain_name(f'{base} {part}')[: LONGEST_NAME - 4]}_{number}", number + 1
        self.devices[name] = {"title": name.replace("_", " "), **entry}
        self.features_of[name] = list(features)
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
        return [f"{name}{_of(devices)}: {plain_text(why)}" for (name, why), devices in found.items()]

    @property
    def told(self) -> list[str]:
        """The notes, as a terminal may show them."""
        return [plain_text(note) for note in self.notes]

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
        return site_text(name, self.part, self.comments)

    @property
    def part(self) -> dict[str, dict[str, Any]]:
        """What it has of a site, by section."""
        return {section: getattr(self, section) for section in SECTIONS}

    @property
    def comments(self) -> Comments:
        """The guesses, by their places in a site file."""
        return {("devices", *place): text for place, text in self.guesses.items()}


def same_driver(drivers: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> str:
    """Return the driver that has the same settings as one of a name, "" if none has."""
    mine = _without_own_secret(name, settings)
    return next((key for key, its in drivers.items() if is_same(_without_own_secret(key, its), mine)), "")


def _without_own_secret(driver: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a driver's settings without a secret that is called after it."""
    auth = settings.get("auth")
    is_own = isinstance(auth, dict) and auth.get("secret_env") == f"{driver.upper()}_SECRET"
    return {**settings, "auth": {**(auth or {}), "secret_env": ""}} if is_own else dict(settings)


def driver_of(made: Imported, stem: str, settings: dict[str, Any]) -> str:
    """Return the name of the driver with these settings; one that is not there yet is made."""
    name = stem if stem not in made.drivers else f"{stem}_{len(made.drivers) + 1}"
    if found := same_driver(made.drivers, name, settings):
        return found
    made.drivers[name] = settings
    return name


def site_text(name: str, part: dict[str, dict[str, Any]], comments: Comments) -> str:
    """Return a site file of a name with these sections, and comments in them."""
    root = {"schema": "site/v1", "name": plain_name(name), "title": name.replace("_", " ")}
    return rendered(root | {section: entries for section, entries in part.items() if entries}, comments=comments)


def parse_json(text: str | bytes) -> Any:
    """Return JSON from elsewhere. Raises ValueError, also for numbers that are none: NaN, Infinity, 1e999."""

    def refuse(number: str) -> float:
        raise ValueError(f"{number} is no number")

    try:
        return json.loads(
            text, parse_constant=refuse, parse_float=lambda one: refuse(one) if math.isinf(float(one)) else float(one)
        )
    except RecursionError as error:
        raise ValueError("it is too deep") from error


def plain_name(text: str) -> str:
    """Return a text as a name: small letters, digits and underscores, of a length that people can say."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()  # ü becomes u
    words = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")[:LONGEST_NAME].strip("_")
    return words if words[:1].isalpha() else f"device_{words}".rstrip("_")


def part_name(text: str) -> str:
    """Return a text as the name of a property, argument or output: not one that every call or result has itself."""
    name = plain_name(text)
    return f"{name}_value" if name in RESERVED else name


def plain_number(value: float) -> float | int:
    """Return a number as people write it."""
    return int(value) if float(value).is_integer() else value


def usable_step(step: float | None, low: float) -> float | int | None:
    """Return a step if the least value is a whole number of them, as a site wants it."""
    return plain_number(step) if step and step > 0 and is_multiple(low, step) else None


def plain_unit(unit: str, known: Mapping[str, str] = UNITS) -> str:
    """Return a unit as a site has it; none where it is a sentence, since the model sees units."""
    return known.get(unit) or (unit if re.fullmatch(r"[\w°%µ²³/^·.-]{1,12}", unit) else "")


def range_schema(kind: str, low: float, high: float, step: float | int | None = None, unit: str = "") -> dict[str, Any]:
    """Return the schema of a number."""
    schema: dict[str, Any] = {"type": kind, "minimum": plain_number(low), "maximum": plain_number(high)}
    return schema | ({} if step is None else {"step": step}) | ({"unit": unit} if unit else {})


def setters(name: str, title: str, schema: dict[str, Any], risk: str = "confirm") -> dict[str, Any]:
    """Return the actions that set a property: on and off, or to a value. What it may move nobody knows, so: a yes."""
    if schema["type"] == "boolean":
        return {
            f"{name}_{word}": {"title": title, "risk": risk, "writes": {name: word == "on"}} for word in ("on", "off")
        }
    given = {key: value for key, value in schema.items() if key != "title"}
    return {f"set_{name}": {"title": title, "risk": risk, "input": {name: given}, "writes": {name: f"${name}"}}}


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


def parsed(model: type[Model], plain: dict[str, Any], where: str, keys: Sequence[str]) -> Model:
    """Return a part of another's file.

    Args:
        model: what it should be.
        plain: what there is.
        where: the source and what it is.
        keys: those of its name; the first that is there counts.

    Raises:
        UsageError: the first problem, with `where`, the name and the field.
    """
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        name = next((str(plain[key]) for key in keys if plain.get(key)), "without a name")
        raise UsageError(f"{where} {plain_text(name)[:60]}: {foreign_problem(error)}") from error


def foreign_problem(error: ValidationError) -> str:
    """Return the field and the problem that pydantic found first in another's file."""
    first = error.errors()[0]
    return f"{plain_text('.'.join(str(part) for part in first['loc']))}: {first['msg']}"


def _of(devices: list[str]) -> str:
    names = [name for name in Counter(devices) if name]
    more = len(names) - NAMED
    listed = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return f" of {listed}" if listed else ""
