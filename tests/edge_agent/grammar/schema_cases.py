"""Tool schemas of every kind that benchmarks of function calling have, with arguments that do and do not fit.

Each entry: the tool's properties, which of them are required, arguments that fit, arguments that do not. Arguments
stand in the order of the properties, as the grammar writes them.
"""

from __future__ import annotations

from typing import Any

Case = tuple[dict[str, Any], list[str], dict[str, Any], dict[str, Any]]

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
NUMBER: dict[str, Any] = {"type": "number"}
TRUTH: dict[str, Any] = {"type": "boolean"}


def some(**properties: Any) -> dict[str, Any]:
    """Return an object's schema; names that end in an underscore are optional."""
    plain = {name.rstrip("_"): schema for name, schema in properties.items()}
    required = [name for name in properties if not name.endswith("_")]
    return {"type": "object", "properties": plain, "required": required}


def many(items: dict[str, Any], **limits: Any) -> dict[str, Any]:
    """Return a list's schema."""
    return {"type": "array", "items": items, **limits}


def one_of(*values: Any) -> dict[str, Any]:
    """Return an enumeration's schema, of the type of its first value."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return {"type": kinds[type(values[0])], "enum": list(values)}


POINT = some(x=NUMBER, y=NUMBER)
DAY = one_of("mon", "tue", "wed", "thu", "fri", "sat", "sun")

CASES: dict[str, Case] = {
    # plain values
    "no parameters": ({}, [], {}, {"x": 1}),
    "a text": ({"room": TEXT}, ["room"], {"room": "attic"}, {"room": 4}),
    "an empty text": ({"note": TEXT}, ["note"], {"note": ""}, {"note": None}),
    "a text of other letters": ({"name": TEXT}, ["name"], {"name": "Küche ä 台所"}, {"name": ["Küche"]}),
    "a whole number": ({"count": WHOLE}, ["count"], {"count": 12}, {"count": 12.5}),
    "a negative number": ({"offset": WHOLE}, ["offset"], {"offset": -40}, {"offset": "-40"}),
    "a number": ({"level": NUMBER}, ["level"], {"level": 2.75}, {"level": "high"}),
    "a number without a point": ({"level": NUMBER}, ["level"], {"level": 3}, {"level": True}),
    "a truth": ({"is_on": TRUTH}, ["is_on"], {"is_on": False}, {"is_on": 0}),
    "nothing": ({"until": {"type": "null"}}, ["until"], {"until": None}, {"until": 0}),
    "any value": ({"value": {}}, ["value"], {"value": [1, {"a": None}]}, {}),
    # required and optional
    "two required": ({"a": WHOLE, "b": WHOLE}, ["a", "b"], {"a": 1, "b": 2}, {"a": 1}),
    "one optional": ({"a": WHOLE, "b": WHOLE}, ["a"], {"a": 1}, {"b": 2}),
    "an optional one given": ({"a": WHOLE, "b": WHOLE}, ["a"], {"a": 1, "b": 2}, {"a": 1, "b": "2"}),
    "all optional": ({"a": TEXT, "b": TRUTH, "c": WHOLE}, [], {"c": 3}, {"d": 3}),
    "an optional one in the middle": ({"a": WHOLE, "b": TEXT, "c": WHOLE}, ["a", "c"],
        {"a": 1, "c": 2}, {"a": 1, "b": "x"}),
    "a required name without a schema": ({"a": WHOLE}, ["a", "b"], {"a": 1, "b": "free"}, {"a": 1}),
    "a default": ({"unit": TEXT | {"default": "celsius"}}, [], {}, {"unit": 1}),
    "a default that another replaces": ({"speed": WHOLE | {"default": 3}}, [], {"speed": 5}, {"speed": "5"}),
    "descriptions": ({"a": WHOLE | {"description": "How \"many\"", "title": "A"}}, ["a"], {"a": 2}, {"a": "2"}),
    "examples": ({"a": TEXT | {"examples": ["one", "two"]}}, ["a"], {"a": "three"}, {"a": 3}),
    # choices
    "words": ({"mode": one_of("eco", "boost", "off")}, ["mode"], {"mode": "boost"}, {"mode": "turbo"}),
    "a word that begins another": ({"m": one_of("in", "inside")}, ["m"], {"m": "inside"}, {"m": "ins"}),
    "words with signs": ({"m": one_of("a b", "c/d", 'e"f', "é")}, ["m"], {"m": 'e"f'}, {"m": "e'f"}),
    "numbers to choose from": ({"baud": one_of(9600, 19200, 115200)}, ["baud"], {"baud": 19200}, {"baud": 19201}),
    "fractions to choose from": ({"step": one_of(0.1, 0.5, 1.0)}, ["step"], {"step": 0.5}, {"step": 0.25}),
    "choices without a type": ({"v": {"enum": ["auto", 1, None]}}, ["v"], {"v": None}, {"v": 2}),
    "one choice": ({"kind": {"type": "string", "const": "scene"}}, ["kind"], {"kind": "scene"}, {"kind": "scenes"}),
    "one choice without a type": ({"version": {"const": 2}}, ["version"], {"version": 2}, {"version": 3}),
    "an optional choice": ({"a": WHOLE, "day": DAY}, ["a"], {"a": 1, "day": "sat"}, {"a": 1, "day": "sa"}),
    # bounds
    "a range": ({"pct": WHOLE | {"minimum": 0, "maximum": 100}}, ["pct"], {"pct": 100}, {"pct": 101}),
    "a negative range": ({"c": WHOLE | {"minimum": -20, "maximum": -5}}, ["c"], {"c": -20}, {"c": -4}),
    "a least value": ({"n": WHOLE | {"minimum": 1}}, ["n"], {"n": 1}, {"n": 0}),
    "a greatest value": ({"n": WHOLE | {"maximum": 9}}, ["n"], {"n": -30}, {"n": 10}),
    "a range of fractions": ({"t": NUMBER | {"minimum": 5, "maximum": 28.5}}, ["t"], {"t": 28.5}, {"t": 28.6}),
    "open at the bottom": ({"t": NUMBER | {"exclusiveMinimum": 0, "maximum": 1}}, ["t"], {"t": 0.01}, {"t": 0}),
    "open at the top": ({"t": WHOLE | {"minimum": 0, "exclusiveMaximum": 24}}, ["t"], {"t": 23}, {"t": 24}),
    "steps": ({"angle": WHOLE | {"minimum": 0, "maximum": 90, "multipleOf": 15}}, ["angle"],
        {"angle": 45}, {"angle": 50}),
    "a least length": ({"pin": TEXT | {"minLength": 4}}, ["pin"], {"pin": "12345"}, {"pin": "123"}),
    "a greatest length": ({"tag": TEXT | {"maxLength": 3}}, ["tag"], {"tag": "abc"}, {"tag": "abcd"}),
    "both lengths": ({"tag": TEXT | {"minLength": 2, "maxLength": 3}}, ["tag"], {"tag": "ab"}, {"tag": "a"}),
    # patterns and formats
    "a pattern": ({"plate": TEXT | {"pattern": "^[A-Z]{2}-[0-9]{3}$"}}, ["plate"],
        {"plate": "AB-123"}, {"plate": "A-123"}),
    "a pattern of choices": ({"axis": TEXT | {"pattern": "^(x|y|z)[12]?$"}}, ["axis"], {"axis": "y2"}, {"axis": "y3"}),
    "a date": ({"d": TEXT | {"format": "date"}}, ["d"], {"d": "2024-02-29"}, {"d": "29.2.2024"}),
    "a time": ({"t": TEXT | {"format": "time"}}, ["t"], {"t": "07:30:00Z"}, {"t": "half past seven"}),
    "a date and time": ({"t": TEXT | {"format": "date-time"}}, ["t"],
        {"t": "2024-05-01T07:30:00Z"}, {"t": "2024-05-01 soon"}),
    "a duration": ({"t": TEXT | {"format": "duration"}}, ["t"], {"t": "PT90M"}, {"t": "90 min"}),
    "an e-mail address": ({"to": TEXT | {"format": "email"}}, ["to"], {"to": "a.b@example.org"}, {"to": "a.b"}),
    "a host": ({"host": TEXT | {"format": "hostname"}}, ["host"], {"host": "box-1.example.org"}, {"host": "a b"}),
    "an address": ({"ip": TEXT | {"format": "ipv4"}}, ["ip"], {"ip": "192.168.0.12"}, {"ip": "192.168.0.300"}),
    "a longer address": ({"ip": TEXT | {"format": "ipv6"}}, ["ip"], {"ip": "2001:db8::1"}, {"ip": "2001:db8::g"}),
    "an identifier": ({"id": TEXT | {"format": "uuid"}}, ["id"],
        {"id": "123e4567-e89b-12d3-a456-426614174000"}, {"id": "123e4567"}),
    "a link": ({"url": TEXT | {"format": "uri"}}, ["url"], {"url": "https://example.org/a?b=1"}, {"url": "no link"}),
    # lists
    "a list of texts": ({"rooms": many(TEXT)}, ["rooms"], {"rooms": ["hall", "attic"]}, {"rooms": "hall"}),
    "an empty list": ({"rooms": many(TEXT)}, ["rooms"], {"rooms": []}, {"rooms": {}}),
    "a list of numbers": ({"values": many(NUMBER)}, ["values"], {"values": [1, 2.5, -3]}, {"values": [1, "2"]}),
    "a list of choices": ({"days": many(DAY)}, ["days"], {"days": ["mon", "sun"]}, {"days": ["mon", "son"]}),
    "a list of anything": ({"all": {"type": "array"}}, ["all"], {"all": [1, "a", None]}, {"all": 1}),
    "a list that is not empty": ({"a": many(WHOLE, minItems=1)}, ["a"], {"a": [1]}, {"a": []}),
    "a list that is not long": ({"a": many(WHOLE, maxItems=2)}, ["a"], {"a": [1, 2]}, {"a": [1, 2, 3]}),
    "a list of one length": ({"rgb": many(WHOLE, minItems=3, maxItems=3)}, ["rgb"],
        {"rgb": [1, 2, 3]}, {"rgb": [1, 2]}),
    "places in a list": ({"pair": {"type": "array", "prefixItems": [TEXT, WHOLE], "items": False, "minItems": 2}},
        ["pair"],
                         {"pair": ["x", 1]}, {"pair": [1, "x"]}),
    "lists in a list": ({"grid": many(many(WHOLE))}, ["grid"], {"grid": [[1, 2], [], [3]]}, {"grid": [1, 2]}),
    "a matrix": ({"m": many(many(NUMBER, minItems=2, maxItems=2), minItems=2, maxItems=2)}, ["m"],
                 {"m": [[1, 0], [0, 1.5]]}, {"m": [[1, 0], [0]]}),
    "lists three deep": ({"c": many(many(many(TRUTH)))}, ["c"], {"c": [[[True], []]]}, {"c": [[True]]}),
    # objects
    "an object": ({"at": POINT}, ["at"], {"at": {"x": 1.5, "y": -2}}, {"at": {"x": 1.5}}),
    "an object with another name": ({"at": POINT}, ["at"], {"at": {"x": 0, "y": 0}}, {"at": {"x": 0, "y": 0, "z": 0}}),
    "an optional name within": ({"who": some(name=TEXT, age_=WHOLE)}, ["who"],
        {"who": {"name": "Ada"}}, {"who": {"age": 9}}),
    "an optional object": ({"a": WHOLE, "at": POINT}, ["a"], {"a": 1}, {"a": 1, "at": {}}),
    "objects in objects": ({"order": some(to=some(street=TEXT, zip=TEXT | {"pattern": "^[0-9]{5}$"}), is_gift_=TRUTH)},
        ["order"],
                           {"order": {"to": {"street": "Elm 3", "zip": "01234"}}},
                           {"order": {"to": {"street": "Elm 3", "zip": "1234"}}}),
    "four deep": ({"a": some(b=some(c=some(d=one_of("leaf"))))}, ["a"], {"a": {"b": {"c": {"d": "leaf"}}}},
                  {"a": {"b": {"c": {"d": "root"}}}}),
    "a list of objects": ({"path": many(POINT, minItems=1)}, ["path"], {"path": [{"x": 0, "y": 1}, {"x": 2, "y": 3}]},
                          {"path": [{"x": 0, "y": 1}, {"x": 2}]}),
    "a list of objects with lists": ({"plan": many(some(day=DAY, hours=many(WHOLE | {"minimum": 0, "maximum": 23})))},
        ["plan"],
                                     {"plan": [{"day": "tue", "hours": [7, 22]}]},
                                     {"plan": [{"day": "tue", "hours": [7, 24]}]}),
    "any object": ({"options": {"type": "object"}}, ["options"], {"options": {"a": 1, "b": [True]}}, {"options": [1]}),
    "names that are free": ({"env": {"type": "object", "additionalProperties": TEXT}}, ["env"],
                            {"env": {"A": "x", "B": "y"}}, {"env": {"A": 1}}),
    "free names beside fixed ones": ({"o": some(id=WHOLE) | {"additionalProperties": TRUTH}}, ["o"],
                                     {"o": {"id": 7, "loud": True}}, {"o": {"id": 7, "loud": "yes"}}),
    "no names at all": ({"o": {"type": "object", "additionalProperties": False}}, ["o"], {"o": {}}, {"o": {"a": 1}}),
    # unions
    "a number or a word": ({"v": {"anyOf": [WHOLE, one_of("auto")]}}, ["v"], {"v": "auto"}, {"v": "manual"}),
    "a text or nothing": ({"v": {"anyOf": [TEXT, {"type": "null"}]}}, ["v"], {"v": None}, {"v": False}),
    "one or a list of them": ({"v": {"anyOf": [DAY, many(DAY, minItems=1)]}}, ["v"], {"v": ["mon", "fri"]}, {"v": []}),
    "two kinds of object": ({"shape": {"anyOf": [some(radius=NUMBER), some(width=NUMBER, height=NUMBER)]}}, ["shape"],
                            {"shape": {"width": 2, "height": 3}}, {"shape": {"width": 2}}),
    "a union in a list": ({"row": many({"anyOf": [NUMBER, {"type": "null"}]})}, ["row"],
        {"row": [1.5, None]}, {"row": [True]}),
    "a union of ranges": ({"n": {"anyOf": [WHOLE | {"minimum": 0, "maximum": 9}, WHOLE | {"minimum": 90}]}},
        ["n"],
                          {"n": 95}, {"n": 50}),
}  # fmt: skip
