"""Sites from W3C Thing Descriptions with HTTP forms.

Every property, action and event is on the account: taken, or left out with a reason. A property becomes one of the
device, with actions that set it where it can be written; an action becomes a call. What it moves nobody can read back:
`safe` in the description is risk none, `idempotent` is low, and anything else needs a yes.
Source: W3C Web of Things Thing Description 1.1, with the security schemes nosec, basic, bearer and apikey.

Does not guard against: a description that calls something safe that is not. A person reads the site file first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from devices.exchange.imports.imported import (
    EVENT,
    FREE_TEXT,
    ONLY_WRITTEN,
    WIDEST,
    Feature,
    Foreign,
    Imported,
    boolean_schema,
    is_plain,
    parsed,
    part_name,
    plain_unit,
    range_schema,
    same_driver,
    setters,
    usable_step,
    words_of,
)

NO_FORM = "no form over HTTP with JSON"
OTHER_SERVER = "on another server than the rest of it"
VERBS = ("GET", "POST", "PUT", "DELETE")
OF_UNITS = {"percent": "percent", "celsius": "degrees", "degree celsius": "degrees", "degreecelsius": "degrees"}


class Described(Foreign):
    """A part of a Thing Description, whose keys are in camel case."""

    model_config = ConfigDict(alias_generator=to_camel)


class Form(Described):
    """Where and how something is done."""

    href: str
    op: str | tuple[str, ...] = ()
    content_type: str = "application/json"
    method: str = Field(default="", alias="htv:methodName")
    subprotocol: str = ""
    security: str | tuple[str, ...] = ()


class Schema(Described):
    """A schema of a value."""

    type: str = ""
    title: str = ""
    enum: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    multiple_of: float | None = None
    unit: str = ""
    properties: dict[str, Schema] = Field(default_factory=dict)


class Property(Schema):
    """A property of a thing."""

    read_only: bool = False
    write_only: bool = False
    uri_variables: dict[str, Any] = Field(default_factory=dict)
    forms: tuple[Form, ...] = ()


class ThingAction(Described):
    """An action of a thing."""

    input: Schema | None = None
    output: Schema | None = None
    safe: bool = False
    idempotent: bool = False
    uri_variables: dict[str, Any] = Field(default_factory=dict)
    forms: tuple[Form, ...] = ()


class Scheme(Described):
    """How to log in."""

    scheme: str
    place: str = Field(default="", alias="in")
    name: str = ""


class Thing(Described):
    """A Thing Description."""

    title: str = ""
    id: str = ""
    base: str = ""
    properties: dict[str, Property] = Field(default_factory=dict)
    actions: dict[str, ThingAction] = Field(default_factory=dict)
    events: dict[str, Any] = Field(default_factory=dict)
    security: str | tuple[str, ...] = ()
    security_definitions: dict[str, Scheme] = Field(default_factory=dict)


class _Left(Exception):
    """Why a feature is left out."""


def import_things(things: Iterable[dict[str, Any]], source: str = "the list") -> Imported:
    """Return the devices of Thing Descriptions.

    Args:
        things: the descriptions.
        source: where they are from, for errors.

    Raises:
        UsageError: a description is broken; the message has the source, the thing and the field.
    """
    made = Imported()
    for plain in things:
        name = str(plain.get("title") or plain.get("id") or "thing")
        _Device(made, parsed(Thing, plain, f"{source}: device", ("title", "id")), name).take()
    return made


class _Device:
    """One Thing Description, on its way to one device of the site."""

    def __init__(self, made: Imported, thing: Thing, title: str) -> None:
        self._made, self._thing, self._title = made, thing, title
        self._properties: dict[str, Any] = {}
        self._actions: dict[str, Any] = {}
        self._at: dict[str, Any] = {}
        self._features: list[Feature] = []
        self._driver = self._model = ""

    def take(self) -> None:
        """Put what it is into the site, and every feature on the account."""
        for key, affordance in self._thing.properties.items():
            self._try(self._made.offer(self._title, key), lambda key=key, one=affordance: self._property(key, one))
        for key, action in self._thing.actions.items():
            self._try(self._made.offer(self._title, key), lambda key=key, one=action: self._action(key, one))
        for key in self._thing.events:
            self._made.offer(self._title, key).leave(EVENT)
        entry = {
            "model": self._model,
            "kind": "thing",
            "properties": self._properties,
            "at": self._at,
            "actions": self._actions,
        }
        if self._properties or self._actions:
            kept = {key: value for key, value in entry.items() if value or key == "properties"}
            self._made.add(self._title, "thing", kept | {"driver": self._driver}, features=self._features)
        else:
            self._made.notes.append(f"{self._title}: nothing of it has a place in a site")

    def _try(self, feature: Feature, take: Any) -> None:
        try:
            take()
        except _Left as left:
            feature.leave(str(left))
        else:
            feature.take()
            self._features.append(feature)

    def _property(self, key: str, affordance: Property) -> None:
        name, is_written = _name(key), not affordance.read_only
        if affordance.write_only:
            raise _Left(ONLY_WRITTEN)
        schema, values = _schema_of(affordance, is_bounded=False)
        if name != "on" and schema["type"] == "boolean":
            schema["title"] = name.replace("_", " ")
        _, path = self._place(affordance.forms, "readproperty", affordance.uri_variables)
        at: dict[str, Any] = {"path": path} | ({"values": values} if values else {})
        if is_written and schema["type"] in {"integer", "number"} and None in (affordance.minimum, affordance.maximum):
            self._made.notes.append(f"{key} of {self._title}: only read here, since it has no minimum and maximum")
        elif is_written:
            written, set_path = self._place(affordance.forms, "writeproperty", affordance.uri_variables)
            verb = written.method or "PUT"
            if verb not in {"POST", "PUT"}:
                raise _Left(f"it is written with {verb}")
            at |= {"set_path": set_path, "verb": verb}
            if name == "on" and schema["type"] == "boolean":
                self._model = "switch"  # which knows how people ask for on and off
            else:
                self._actions |= setters(name, name.replace("_", " "), schema, "low")
        self._properties[name], self._at[name] = schema, at

    def _action(self, key: str, action: ThingAction) -> None:
        name = _name(key)
        given, send = _arguments(action.input)
        output, keys = _output(action.output)
        form, path = self._place(action.forms, "invokeaction", action.uri_variables)
        verb = form.method or "POST"
        if verb not in VERBS:
            raise _Left(f"it is called with {verb}")
        if "{" in path:
            raise _Left("it takes variables in its address")
        title = name.replace("_", " ")
        risk = "none" if action.safe else "low" if action.idempotent else "confirm"
        at: dict[str, Any] = {"path": path, "verb": verb} | ({"send": send} if send else {})
        at |= ({"keys": keys} if keys else {}) | ({} if action.safe else {"is_unkeyed": True})
        answered = "".join(f", {one.replace('_', ' ')} {{{one}}}" for one in output)
        call: dict[str, Any] = {"title": title, "risk": risk, "at": at, "report": f"{title} is done{answered}."}
        call |= ({"input": given} if given else {}) | ({"output": output} if output else {})
        while name in self._actions:
            name += "_too"
        self._actions[name] = call

    def _place(self, forms: tuple[Form, ...], op: str, variables: Mapping[str, Any]) -> tuple[Form, str]:
        """Return the first form that can be used for an operation, and its path; its server becomes the driver."""
        if variables:
            raise _Left("it takes variables in its address")
        for form in forms:
            try:
                url = urlsplit(urljoin(self._thing.base, form.href))
            except ValueError as error:
                raise _Left("its address is none") from error
            if (
                url.scheme in {"http", "https"}
                and re.fullmatch(r"\S+", url.netloc)
                and _does(form, op)
                and "json" in form.content_type
            ):
                if "{" in form.href or re.search(r"\s", url.path + url.query):
                    raise _Left("it takes variables in its address, or has blanks in it")
                self._connect(f"{url.scheme}://{url.netloc}", form.security or self._thing.security)
                return form, url.path + (f"?{url.query}" if url.query else "") or "/"
        raise _Left(NO_FORM)

    def _connect(self, server: str, security: str | tuple[str, ...]) -> None:
        """Make the server the device's driver. Raises _Left if it is another one, or cannot be logged in to."""
        name = f"http_{len(self._made.drivers) + 1}"
        auth = self._auth((security,) if isinstance(security, str) else security, f"{name.upper()}_SECRET")
        settings = {"type": "http", "url": server} | ({"auth": auth} if auth else {})
        driver = same_driver(self._made.drivers, name, settings)
        if self._driver not in {"", driver}:
            raise _Left(OTHER_SERVER)
        if not driver:
            self._made.drivers[name] = settings
            self._made.notes += [_login_note(name, auth)] if auth else []
        self._driver = driver or name

    def _auth(self, names: tuple[str, ...], variable: str) -> dict[str, Any]:
        schemes = [self._thing.security_definitions.get(name) for name in names if name]
        known = [one for one in schemes if one is not None and one.scheme != "nosec"]
        if None in schemes:
            raise _Left("its security is not defined")
        if not known:
            return {}
        scheme = known[0]
        if len(known) > 1 or scheme.scheme not in {"basic", "bearer", "apikey"}:
            raise _Left(f"it needs the security {' and '.join(one.scheme for one in known)}")
        if scheme.scheme != "apikey" and scheme.place not in {"", "header"}:
            raise _Left(f"it needs the security {scheme.scheme} in its {scheme.place}")
        found: dict[str, Any] = {"scheme": scheme.scheme, "secret_env": variable}
        if scheme.scheme == "basic":
            return found | {"user": "user"}
        if scheme.scheme == "apikey":
            if scheme.place not in {"", "header", "query"} or not re.fullmatch(r"[\w.-]+", scheme.name, re.ASCII):
                raise _Left(f"it needs a key in its {scheme.place or 'place without a name'}")
            return found | {"place": scheme.place or "query", "name": scheme.name}
        return found


def _name(key: str) -> str:
    """Return a name of a Thing Description as one of ours: testPage is test_page."""
    return part_name(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key))


def _login_note(driver: str, auth: Mapping[str, str]) -> str:
    what = {"basic": "the password, and `user` is set in the site file", "bearer": "the token", "apikey": "the key"}
    return f"driver {driver} logs in with {auth['scheme']}: ${auth['secret_env']} holds {what[auth['scheme']]}"


def _does(form: Form, op: str) -> bool:
    ops = (form.op,) if isinstance(form.op, str) else form.op
    return (op in ops if ops else True) and not form.subprotocol


def _schema_of(found: Schema, *, is_bounded: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a schema of ours, and what stands for words that are none. Raises _Left if there cannot be one."""
    if found.enum:
        words, values = words_of(found.enum)
        schema: dict[str, Any] = {"type": "string", "enum": words}
    elif found.type == "boolean":
        schema, values = boolean_schema(), {}
    elif found.type in {"integer", "number"}:
        schema, values = _number_of(found, is_bounded=is_bounded), {}
    else:
        kinds = {"string": FREE_TEXT, "object": "several values in one", "array": "a list", "": "of no type"}
        raise _Left(kinds.get(found.type, f"of the type {found.type}"))
    if not is_plain(schema):
        raise _Left("words or bounds that a site cannot have")
    return schema, values


def _number_of(found: Schema, *, is_bounded: bool) -> dict[str, Any]:
    low, high = found.minimum, found.maximum
    if is_bounded and None in (low, high):
        raise _Left("a number without minimum and maximum")
    low, high = (-WIDEST if low is None else low), (WIDEST if high is None else high)
    unit = OF_UNITS.get(found.unit.lower()) or plain_unit(found.unit)
    return range_schema(found.type, low, high, usable_step(found.multiple_of, low), unit)


def _arguments(found: Schema | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arguments of an action, and the key in the body for each. Raises _Left if one cannot be."""
    if found is None:
        return {}, {}
    if found.type != "object":
        return {"value": _argument(found, "input")}, {"value": ""}
    send = {_name(key): key for key in found.properties}
    return {_name(key): _argument(one, key) for key, one in found.properties.items()}, send


def _argument(found: Schema, key: str) -> dict[str, Any]:
    try:
        schema, values = _schema_of(found, is_bounded=True)
    except _Left as left:
        raise _Left(f"its {key} is {left}") from left
    if values:
        raise _Left(f"its {key} has values that are no words")
    return schema


def _output(found: Schema | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what an action answers, and where in the answer it is; nothing if a site cannot have it."""
    if found is None:
        return {}, {}
    parts = found.properties if found.type == "object" else {"result": found}
    output, keys = {}, {}
    for key, one in parts.items():
        try:
            schema, values = _schema_of(one, is_bounded=False)
        except _Left:
            continue
        name = _name(key)
        output[name] = schema
        keys[name] = {"key": key if found.type == "object" else ""} | ({"values": values} if values else {})
    return output, keys
