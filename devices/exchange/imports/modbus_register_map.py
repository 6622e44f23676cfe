"""Sites from Modbus register maps: CSV files with a row for each register, as makers of meters and PLCs give them.

value = raw * scale + offset; minimum and maximum are of the value. What can be written gets an action that a person
confirms, if its limits are known. Each row is taken, or left out by line, name and reason.
Addresses are from 0 as on the wire, unless all are written as 40001 (which is holding 0), or the column's title says
"1-based"; which of them it was is in `notes`, too.

Does not guard against: a map that is wrong, or counts from 1 and does not say so.
"""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from devices.drivers.modbus.register import WORDS, Register
from devices.errors import did_you_mean
from devices.exchange.imports.imported import UNITS, Imported, plain_name
from devices.exchange.imports.register_map_file import STYLES, WRITE_FUNCTIONS, LeftOut, Row, address_style, read_rows
from devices.site.describe import plain_text
from devices.site.schema import DataSchema
from devices.yaml_file import first_problem

TYPES = {
    "int16": "int16 s16 i16 sint16 signed16 short",
    "uint16": "uint16 u16 unsigned16 ushort word enum16 bitfield16 acc16",
    "int32": "int32 s32 i32 sint32 signed32 dint long",
    "uint32": "uint32 u32 unsigned32 udint ulong dword enum32 bitfield32 acc32",
    "int64": "int64 s64 i64 sint64 signed64 lint",
    "uint64": "uint64 u64 unsigned64 ulint qword acc64",
    "float32": "float32 f32 real single ieee754",
    "float64": "float64 f64 double lreal",
    "int": "int integer signed sint",
    "uint": "uint unsigned",
    "float": "float",
}
ORDERS = {
    "ABCD": "abcd, big, high word first, msw first, msw",
    "CDAB": "cdab, little, low word first, lsw first, lsw, word swap, swapped, big-endian word swap",
    "BADC": "badc, byte swap, big-endian byte swap",
    "DCBA": "dcba, byte and word swap",
}
# Neither too long to work with nor divided by 0.
NUMBER = re.compile(
    r"[+-]?(?:(?:\d{1,20}\.?\d{0,20}|\.\d{1,20})(?:e[+-]?\d{1,2})?|\d{1,20}/0*[1-9]\d{0,19})", re.I | re.A
)
WIDEST = 3.4e38  # of a float32
LONGEST_UNIT = 20


def import_register_map(path: Path, host: str = "127.0.0.1") -> Imported:
    """Return the devices of a register map.

    Args:
        path: a CSV file in UTF-8, with titles in its first line.
        host: the Modbus server.

    Raises:
        UsageError: it cannot be read as such; with file, line and column.
    """
    titles, rows = read_rows(path)
    style = address_style(path, rows, titles)
    imported = Imported(drivers={"modbus": {"type": "modbus", "host": host}})
    entries: dict[str, dict[str, Any]] = {}
    for row in rows:
        feature = imported.offer("", f"{path}:{row.line}: {plain_text(row['name']) or 'no name'}")
        try:
            _take(row, style, entries, plain_name(path.stem))
            feature.take()
        except LeftOut as problem:
            feature.leave(str(problem))
    for title, entry in entries.items():
        imported.add(title, "meter", {key: value for key, value in entry.items() if value})
    unused = [plain_text(title) for title, kind in titles.items() if not kind]
    imported.notes += [f"addresses: {STYLES[style]}"]
    imported.notes += [f"columns not used: {', '.join(unused)}"] if unused else []
    imported.notes += [f"{path}:{row.line}: {plain_text(row['name'])}: {note}" for row in rows for note in row.notes]
    return imported


def _take(row: Row, style: str, entries: dict[str, dict[str, Any]], stem: str) -> None:
    """Put the property of a row into the entry of its device. Raises LeftOut."""
    if not row["name"]:
        raise LeftOut("a row without a name")
    name = plain_name(row["name"])
    unit_id = row["unit_id"] or (row["device"] if row["device"].isdecimal() else "")
    if unit_id and not (unit_id.isdecimal() and int(unit_id) <= 255):
        raise LeftOut(f"{unit_id!r} is no unit id; they are 0 to 255")
    title = row["device"] if row["device"] != unit_id else ""
    entry = entries.get(title := title or (f"unit {unit_id}" if unit_id else stem), {})
    if name in entry.get("properties", {}):
        raise LeftOut(f"{title} has a {name} already")
    at = _address(row, style) | ({"unit": int(unit_id)} if unit_id else {})
    schema = _schema(row, at)
    if schema["type"] in {"boolean", "string"}:
        at = {key: value for key, value in at.items() if key not in {"scale", "offset"}}
    try:
        register, _ = Register.model_validate(at), DataSchema.model_validate(schema)
    except ValidationError as error:
        keys, message, _ = first_problem(error, Register)
        raise LeftOut(": ".join([*map(str, keys), message])) from error
    actions = _actions(row, name, schema, register, at)
    entry = entries.setdefault(
        title, {"kind": "machine", "driver": "modbus", "properties": {}, "at": {}, "actions": {}}
    )
    entry["properties"][name], entry["at"][name] = schema, at
    entry["actions"] |= actions


def _address(row: Row, style: str) -> dict[str, Any]:
    """Return where the property of a row is, as a site file has it."""
    text, _, bit_in_address = row["address"].partition(".")
    if bit_in_address == "0" and not row.is_bool:
        bit_in_address = ""  # a spreadsheet's 40010.0 is 40010
    first, _, last = (part.strip() for part in text.replace("–", "-").partition("-"))
    if style == "modicon":
        if not (found := row.modicon):
            raise LeftOut(f"{row['address']!r} is no address")
        table, address = found
    else:
        table, address = row.table, _whole(first) - (style == "1")
        if not table:
            raise LeftOut("nothing says which table")
    if not 0 <= address <= 65535:
        raise LeftOut(f"the address {row['address']} is outside {'1 to 65536' if style == '1' else '0 to 65535'}")
    at: dict[str, Any] = {table: address} | _bits(row["bit"] or bit_in_address)
    if table in {"coil", "discrete"}:
        return {table: address}
    if row["registers"] and not row["registers"].isdecimal():
        raise LeftOut(f"{row['registers']!r} is no number of registers")
    span = _whole(last) - _whole(first) + 1 if last else int(row["registers"] or 0)
    at |= _words(row, "bit" in at, span)
    if order := _order(row["order"]):
        at["word_order"] = order
    scale = _number(row["scale"] or "1") / _number(row["divisor"] or "1", "divisor")
    offset = _number(row["offset"] or "0")
    at |= {"scale": float(scale)} if scale != 1 else {}
    return at | ({"offset": float(offset)} if offset else {})


def _whole(text: str) -> int:
    """Return an address: decimal, 0x1F or 1Fh."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    if hexadecimal := re.fullmatch(r"0x([0-9a-f]+)|([0-9a-f]+)h", text.lower()):
        return int(hexadecimal[1] or hexadecimal[2], 16)
    raise LeftOut(f"{text!r} is no address" if text else "no address")


def _bits(text: str) -> dict[str, int]:
    """Return which bits of a register "3", "8-11" or "8..11" are."""
    if not text:
        return {}
    if not (found := re.fullmatch(r"(\d+)(?:\s*(?:-|–|\.\.|:)\s*(\d+))?", text)):
        raise LeftOut(f"{text!r} is no bit")
    low, high = sorted((int(found[1]), int(found[2] or found[1])))
    return {"bit": low} | ({"bits": high - low + 1} if high > low else {})


def _words(row: Row, has_bit: bool, span: int) -> dict[str, Any]:
    """Return type and number of registers of a row; `span` is how many registers it says that there are, 0 if none."""
    plain = "" if row.is_bool else re.sub(r"[\s_-]", "", row["type"].lower())
    if text := re.fullmatch(r"(?:string|str|ascii|char|text)[\[(]?(\d*)[\])]?", plain):
        if not span and not text[1]:
            raise LeftOut("a text without a number of registers")
        return {"words": "string", "registers": span or (int(text[1]) + 1) // 2}
    named = next((words for words, names in TYPES.items() if plain in names.split()), "uint16" if not plain else "")
    if not named:
        hint = did_you_mean(plain, [name for names in TYPES.values() for name in names.split()])
        raise LeftOut(f"the type {row['type']!r} is not known" + (f"; {hint}" if hint else ""))
    if named in {"int", "uint", "float"}:  # makers mean 16 bits, floats 32, unless the map has their number
        named += str(16 * (span or (2 if named == "float" else 1)))
    if named not in WORDS:
        raise LeftOut(f"{row['type']} in {span} registers")
    if has_bit and not named.startswith("u"):
        named = f"u{named}" if named.startswith("int") else named
    if span and span != (has := struct.calcsize(WORDS[named]) // 2):
        raise LeftOut(f"{span} registers, and {named} has {has}")
    return {"words": named} if named != "uint16" else {}


def _order(text: str) -> str:
    plain = " ".join(text.lower().replace("endian", "-endian").replace("--", "-").replace(" -", "-").split())
    if plain in {"", "big-endian"}:
        return ""
    if order := next((order for order, names in ORDERS.items() if plain in names.split(", ")), ""):
        return order if order != "ABCD" else ""
    known = "; it can be CDAB or DCBA" if plain.startswith("little") else f"; orders: {', '.join(ORDERS)}"
    raise LeftOut(f"the word order {text!r} is not clear{known}")


def _number(text: str, what: str = "number") -> Fraction:
    """Return 0.1, "0,1", "1/10", "/10" or "x0.1" as a number."""
    plain = text.replace(" ", "").lstrip("x×*").replace(",", ".")
    plain = f"1{plain}" if plain.startswith("/") else plain
    if not NUMBER.fullmatch(plain):
        raise LeftOut(f"{text!r} is no number")
    found = Fraction(plain)
    if what == "divisor" and not found:
        raise LeftOut("a divisor of 0")
    return found


def _schema(row: Row, at: dict[str, Any]) -> dict[str, Any]:
    """Return what values the property of a row has."""
    if {"coil", "discrete"} & at.keys() or row.is_bool or ("bit" in at and "bits" not in at):
        return {"type": "boolean"}
    words = at.get("words", "uint16")
    if row["values"]:
        return {"type": "string", "enum": _named_values(row["values"], is_text=words == "string")}
    if words == "string":
        raise LeftOut("a text of which nothing says which there are; name them in a column `values`, as off|eco|on")
    scale, offset = Fraction(str(at.get("scale", 1))), Fraction(str(at.get("offset", 0)))
    low, high = _raw_range(words, at)
    ends = sorted((low * scale + offset, high * scale + offset))
    low, high = (_number(row[kind]) if row[kind] else end for kind, end in zip(("min", "max"), ends, strict=True))
    is_whole = "float" not in words and all(one.denominator == 1 for one in (scale, offset, low, high))
    schema: dict[str, Any] = {"type": "integer" if is_whole else "number"}
    schema |= {"minimum": float(low), "maximum": float(high)}
    if unit := UNITS.get(row["unit"], row["unit"].replace("^2", "²").replace("^3", "³")):
        if unit.isdecimal():
            raise LeftOut(f"the unit {unit} is a number; the column of unit ids is called `unit id`")
        if len(unit) > LONGEST_UNIT or unit.count(" ") > 1:
            raise LeftOut(f"{unit!r} is too long for a unit")
        schema["unit"] = unit
    return schema


def _raw_range(words: str, at: dict[str, Any]) -> tuple[Fraction, Fraction]:
    if words.startswith("float"):
        return Fraction(-WIDEST), Fraction(WIDEST)
    bits = at.get("bits", 8 * struct.calcsize(WORDS[words]))
    lowest = 0 if words.startswith("u") else -(2 ** (bits - 1))
    return Fraction(lowest), Fraction(lowest + 2**bits - 1)


def _named_values(text: str, *, is_text: bool) -> list[str]:
    """Return the words of "off|eco|on" or "0=off; 1=eco; 2=on", which must count from 0."""
    words = []
    for place, part in enumerate(one.strip() for one in re.split(r"[|;,]", text)):
        number, _, word = part.rpartition("=") if "=" in part else part.rpartition(":")
        if number and number.strip() != str(place):
            raise LeftOut(f"its values count {place}, {number.strip()}: a site has them from 0, without gaps")
        words.append(word.strip() if is_text else plain_name(word))
    if is_text and any(" " in word for word in words):
        raise LeftOut("values with blanks in them")  # a sentence would reach the model
    return words


def _actions(row: Row, name: str, schema: dict[str, Any], register: Register, at: dict[str, Any]) -> dict[str, Any]:
    """Return the actions that set the property of a row, and note why one that can be written has none."""
    access = re.sub(r"[^rw]", "", re.sub(r"read|only|write", lambda word: word[0][0].strip("o"), row["access"].lower()))
    writes = row.functions & WRITE_FUNCTIONS
    if access == "w":
        raise LeftOut("only written, so that nothing could be read back")
    if "w" not in access and (access or not writes):
        return {}
    if register.table not in {"coil", "holding"}:
        row.notes.append("only read: its table cannot be written")
        return {}
    if schema["type"] in {"integer", "number"} and not (row["min"] and row["max"]):
        row.notes.append("only read: it can be written, and has no min and max")
        return {}
    if writes and not writes & set(register.write_functions):
        if register.count > 1:
            row.notes.append(f"only read: function {min(writes)} writes one register, and it has {register.count}")
            return {}
        at["write_function"] = min(writes)
    elif len(writes) == 1 and (only := min(writes)) != register.write_functions[0]:
        at["write_function"] = only
    if schema["type"] == "boolean":
        return {f"{name}_{word}": {"writes": {name: word == "on"}, "risk": "confirm"} for word in ("on", "off")}
    action: dict[str, Any] = {"input": {name: dict(schema)}, "writes": {name: f"${name}"}, "risk": "confirm"}
    if schema["type"] == "number" and not register.words.startswith("float"):
        action["tolerance"] = abs(register.scale) / 2  # what the register cannot hold it rounds
    return {f"set_{name}": action}
