"""Sites from Modbus register maps: CSV files with a row for each register, as makers of meters and PLCs give them.

value = raw * scale + offset; minimum and maximum are of the value. What can be written gets an action that a person
confirms, if its limits are known. Each row is taken, or left out by line, name and reason; the counts are in `notes`.
Addresses are from 0 as on the wire, unless all are written as 40001 (which is holding 0), or the column's title says
"1-based"; which of them it was is in `notes`, too.

Does not guard against: a map that is wrong, or counts from 1 and does not say so.
"""

from __future__ import annotations

import csv
import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from devices.drivers.modbus.register import WORDS, Register
from devices.errors import UsageError, did_you_mean
from devices.exchange.imports import UNITS, Imported, plain_name
from devices.site.describe import plain_text
from devices.site.schema import DataSchema
from devices.yaml_file import first_problem

# What makers call the columns, in small letters; if a map has several of one kind, the one named first here counts.
COLUMNS = {
    "name": "name, parameter, signal, tag, point, data point, variable, register name, measurement, title",
    "address": "address, register address, modbus address, start address, addr, register, start register,"
    " register number, reg",
    "table": "function, function code, fc, table, register type, object type, area",
    "type": "type, data type, datatype, format, value type",
    "order": "word order, byte order, order, endianness, endian",
    "scale": "scale, factor, scale factor, multiplier, gain, scaling, resolution",
    "divisor": "divisor, divide by",
    "offset": "offset, value offset",
    "unit": "unit, units, engineering unit, uom, eu",
    "access": "access, r/w, rw, read/write, permission",
    "min": "min, minimum, min value, lower limit",
    "max": "max, maximum, max value, upper limit",
    "unit_id": "unit id, device/unit id, device id, slave id, slave, slave address, unit address, station, server id",
    "device": "device, device name, equipment",
    "bit": "bit, bits, bit number, bit position",
    "registers": "registers, length, size, count, quantity, register count, number of registers",
    "values": "values, enum, states, options",
}
NEEDED = ("name", "address")
DELIMITERS = ",;\t|"
BASE_IN_TITLE = re.compile(r"\b(?:([01])|(zero)|(one))[ -]?based|\bfrom ([01])\b", re.IGNORECASE)
TABLES = {
    "coil": {"coil", "coils", "0x", "do", "digital output", "output coil"},
    "discrete": {"discrete", "discrete input", "discrete inputs", "1x", "di", "digital input", "input status"},
    "holding": {"holding", "holding register", "holding registers", "4x", "ao", "hr"},
    "input": {"input", "input register", "input registers", "3x", "ai", "ir"},
}
FUNCTIONS = {1: "coil", 2: "discrete", 3: "holding", 4: "input", 5: "coil", 6: "holding", 15: "coil", 16: "holding"}
WRITES = {5, 6, 15, 16}
TYPES = {
    "bool": "bool boolean bit binary flag coil",
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
LEADING_DIGIT = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
WIDEST = 3.4e38  # of a float32
LONGEST_UNIT = 12


class _LeftOut(Exception):
    """Why a row cannot be taken."""


@dataclass
class _Row:
    """One row of a map: its cells by what they are, and what it says of where the property is."""

    line: int
    cells: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, kind: str) -> str:
        return self.cells.get(kind, "")

    @property
    def functions(self) -> set[int]:
        """The function codes that its table column names."""
        text = self["table"].lower()
        return {int(one) for one in re.findall(r"\d+", text)} if re.fullmatch(r"[\sfcx0-9,;/+&.]*", text) else set()

    @property
    def is_bool(self) -> bool:
        """Whether its type is one of those that are true or false."""
        return self["type"].lower() in TYPES["bool"].split()

    @property
    def table(self) -> str:
        """Its table as its column says, or "" if that says none."""
        text = " ".join(self["table"].lower().split())
        named = [table for table, words in TABLES.items() if text in words]
        found = named or sorted({FUNCTIONS[code] for code in self.functions if code in FUNCTIONS})
        if found == ["holding", "input"]:
            found = ["holding"]  # 03/04: both read it
        if text and len(found) != 1:
            raise _LeftOut(f"{self['table']!r} says no table; tables: {', '.join(TABLES)}, or their function codes")
        return found[0] if found else ""

    @property
    def modicon(self) -> tuple[str, int] | None:
        """Table and address from 0 if its address is in the manner of 40001 or 400001 and fits its table."""
        text = re.split(r"[.–-]", self["address"])[0].strip()
        table = self.table
        if table == "coil" and re.fullmatch(r"\d{1,4}", text) and int(text):  # a spreadsheet drops leading zeros
            return table, int(text) - 1
        if not re.fullmatch(r"[0134]\d{4,5}", text) or not 1 <= int(text[1:]) <= 65536:
            return None
        by_digit = LEADING_DIGIT[text[0]]
        return (by_digit, int(text[1:]) - 1) if table in {"", by_digit} else None


def import_register_map(path: Path, host: str = "127.0.0.1") -> Imported:
    """Return the devices of a register map.

    Args:
        path: a CSV file in UTF-8, with titles in its first line.
        host: the Modbus server.

    Raises:
        UsageError: it cannot be read as such; with file, line and column.
    """
    titles, rows = _read(path)
    style = _style(path, rows, titles)
    imported = Imported(drivers={"modbus": {"type": "modbus", "host": host}})
    entries: dict[str, dict[str, Any]] = {}
    left_out: list[str] = []
    for row in rows:
        try:
            _take(row, style, entries, plain_name(path.stem))
        except _LeftOut as problem:
            left_out.append(f"{path}:{row.line}: {plain_text(row['name']) or 'no name'}: {problem}")
    imported.left_out += left_out
    taken = sum(len(entry["properties"]) for entry in entries.values())
    for title, entry in entries.items():
        imported.add(title, {key: value for key, value in entry.items() if value})
    unused = [plain_text(title) for title, kind in titles.items() if not kind]
    imported.notes += [f"{path}: {len(rows)} rows: {taken} taken, {len(left_out)} left out"]
    imported.notes += [f"addresses: {STYLES[style]}"]
    imported.notes += [f"columns not used: {', '.join(unused)}"] if unused else []
    imported.notes += [f"{path}:{row.line}: {plain_text(row['name'])}: {note}" for row in rows for note in row.notes]
    return imported


STYLES = {
    "modicon": "as 40001, which is holding 0",
    "1": "from 1, as the column says",
    "0": "from 0, as the column says",
    "": "from 0, as on the wire; if the map counts from 1, call the column `address (1-based)`",
}


def _read(path: Path) -> tuple[dict[str, str], list[_Row]]:
    """Return the titles of a file, each with its kind or "", and its rows that are not empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8").split("\n")
        where = f"{path}:{len(before)}:{len(before[-1]) + 1}"
        byte = error.object[error.start]
        raise UsageError(f"{where}: byte 0x{byte:02x} is not UTF-8", hint="save it as CSV UTF-8") from error
    records = _records(path, text)
    line, titles = next(records, (1, []))
    titles = [title or f"column {place}" for place, title in enumerate(titles, 1)]
    kinds = _kinds(path, line, titles)
    is_hexadecimal = any(kind == "address" and "hex" in title.lower() for title, kind in kinds.items())
    rows = []
    for line, cells in records:
        if len(cells) > len(titles) and any(cells[len(titles) :]):
            raise UsageError(
                f"{path}:{line}:{len(titles) + 1}: {len(cells)} cells, and the titles are {len(titles)}",
                hint="put a cell with a comma in it into quotes",
            )
        named = dict(zip(kinds.values(), cells, strict=False))
        rows.append(_Row(line, {kind: cell for kind, cell in named.items() if kind}))
        address = rows[-1]["address"]
        if is_hexadecimal and address and not re.search("[xh]", address.lower()):
            rows[-1].cells["address"] = f"0x{address}"
    return kinds, rows


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not empty: the line in which it begins, and its cells without blanks around them."""
    lines = io.StringIO(text, newline="").readlines()
    first = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter=max(DELIMITERS, key=first.count), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            column = lines[line - 1].find('"') + 1 or 1
            raise UsageError(f"{path}:{line}:{column}: not CSV: {error}", hint="look at the quotes there") from error
        if any(cells):
            yield line, cells


def _kinds(path: Path, line: int, titles: Sequence[str]) -> dict[str, str]:
    """Return for each title what it is: a key of COLUMNS, or "" if it is none or another one is better."""
    plain = {title: " ".join(re.sub(r"\(.*?\)|\[.*?\]|_", " ", title).lower().split()) for title in titles}
    if len(plain) < len(titles):
        place, twice = next((place, title) for place, title in enumerate(titles) if title in titles[:place])
        raise UsageError(f"{path}:{line}:{place + 1}: two columns are called {twice!r}")
    kinds = dict.fromkeys(titles, "")
    for kind, names in COLUMNS.items():
        ranks = {name: rank for rank, name in enumerate(names.split(", "))}
        if known := [title for title in titles if plain[title] in ranks]:
            kinds[min(known, key=lambda title: ranks[plain[title]])] = kind
    for kind in NEEDED:
        if kind not in kinds.values():
            hint = f"one of: {COLUMNS[kind]}; the file has: {', '.join(titles) or 'nothing'}"
            raise UsageError(f"{path}:{line}:1: no column for the {kind}", hint=hint)
    return kinds


def _style(path: Path, rows: list[_Row], titles: dict[str, str]) -> str:
    """Return how addresses are written, a key of STYLES. Raises UsageError if they are written in two ways."""
    title = next(title for title, kind in titles.items() if kind == "address")
    if said := BASE_IN_TITLE.search(title):
        return "1" if said[3] or "1" in (said[1], said[4]) else "0"
    hint = "write all as 40001, or say `address (0-based)` or `address (1-based)` as the title of the column"
    fits: list[_Row] = []
    others: list[_Row] = []
    for row in rows:
        try:
            (others if row.modicon is None else fits).append(row)
        except _LeftOut:
            continue  # told when the row is left out
    column = list(titles).index(title) + 1
    if not any(len(row["address"]) > 4 for row in fits):
        if "table" not in titles.values():
            raise UsageError(f"{path}:{rows[0].line if rows else 1}:{column}: nothing says which table", hint=hint)
        return ""
    for row in others:
        if re.match(r"\d", row["address"]):
            where = f"{path}:{row.line}:{column}"
            other = f"line {fits[0].line} has {fits[0]['address']}"
            raise UsageError(f"{where}: the address {row['address']} is not as 40001 for its table; {other}", hint=hint)
    return "modicon"


def _take(row: _Row, style: str, entries: dict[str, dict[str, Any]], stem: str) -> None:
    """Put the property of a row into the entry of its device. Raises _LeftOut."""
    if not row["name"]:
        raise _LeftOut("a row without a name")
    name = plain_name(row["name"])
    unit_id = row["unit_id"] or (row["device"] if row["device"].isdecimal() else "")
    if unit_id and not (unit_id.isdecimal() and int(unit_id) <= 255):
        raise _LeftOut(f"{unit_id!r} is no unit id; they are 0 to 255")
    title = row["device"] if row["device"] != unit_id else ""
    entry = entries.get(title := title or (f"unit {unit_id}" if unit_id else stem), {})
    if name in entry.get("properties", {}):
        raise _LeftOut(f"{title} has a {name} already")
    at = _address(row, style) | ({"unit": int(unit_id)} if unit_id else {})
    schema = _schema(row, at)
    try:
        register, _ = Register.model_validate(at), DataSchema.model_validate(schema)
    except ValidationError as error:
        keys, message, _ = first_problem(error, Register)
        raise _LeftOut(": ".join([*map(str, keys), message])) from error
    actions = _actions(row, name, schema, register, at)
    entry = entries.setdefault(
        title, {"kind": "machine", "driver": "modbus", "properties": {}, "at": {}, "actions": {}}
    )
    entry["properties"][name], entry["at"][name] = schema, at
    entry["actions"] |= actions


def _address(row: _Row, style: str) -> dict[str, Any]:
    """Return where the property of a row is, as a site file has it."""
    text, _, bit_in_address = row["address"].partition(".")
    if bit_in_address == "0" and not row.is_bool:
        bit_in_address = ""  # a spreadsheet's 40010.0 is 40010
    first, _, last = (part.strip() for part in text.replace("–", "-").partition("-"))
    if style == "modicon":
        if not (found := row.modicon):
            raise _LeftOut(f"{row['address']!r} is no address")
        table, address = found
    else:
        table, address = row.table, _whole(first) - (style == "1")
        if not table:
            raise _LeftOut("nothing says which table")
    if not 0 <= address <= 65535:
        raise _LeftOut(f"the address {row['address']} is outside {'1 to 65536' if style == '1' else '0 to 65535'}")
    at: dict[str, Any] = {table: address} | _bits(row["bit"] or bit_in_address)
    if table in {"coil", "discrete"}:
        return {table: address}
    span = _whole(last) - _whole(first) + 1 if last else int(row["registers"] or 0) if _is_count(row) else 0
    at |= _words(row, "bit" in at, span)
    if order := _order(row["order"]):
        at["word_order"] = order
    scale = _number(row["scale"] or "1") / _number(row["divisor"] or "1", "divisor")
    offset = _number(row["offset"] or "0")
    at |= {"scale": float(scale)} if scale != 1 else {}
    return at | ({"offset": float(offset)} if offset else {})


def _is_count(row: _Row) -> bool:
    if row["registers"] and not row["registers"].isdecimal():
        raise _LeftOut(f"{row['registers']!r} is no number of registers")
    return bool(row["registers"])


def _whole(text: str) -> int:
    """Return an address: decimal, 0x1F or 1Fh."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    if hexadecimal := re.fullmatch(r"0x([0-9a-f]+)|([0-9a-f]+)h", text.lower()):
        return int(hexadecimal[1] or hexadecimal[2], 16)
    raise _LeftOut(f"{text!r} is no address" if text else "no address")


def _bits(text: str) -> dict[str, int]:
    """Return which bits of a register "3", "8-11" or "8..11" are."""
    if not text:
        return {}
    if not (found := re.fullmatch(r"(\d+)(?:\s*(?:-|–|\.\.|:)\s*(\d+))?", text)):
        raise _LeftOut(f"{text!r} is no bit")
    low, high = sorted((int(found[1]), int(found[2] or found[1])))
    return {"bit": low} | ({"bits": high - low + 1} if high > low else {})


def _words(row: _Row, has_bit: bool, span: int) -> dict[str, Any]:
    """Return type and number of registers of a row; `span` is how many registers it says that there are, 0 if none."""
    plain = re.sub(r"[\s_-]", "", row["type"].lower())
    if text := re.fullmatch(r"(?:string|str|ascii|char|text)[\[(]?(\d*)[\])]?", plain):
        if not span and not text[1]:
            raise _LeftOut("a text without a number of registers")
        return {"words": "string", "registers": span or (int(text[1]) + 1) // 2}
    named = next((words for words, names in TYPES.items() if plain in names.split()), "uint16" if not plain else "")
    if not named:
        hint = did_you_mean(plain, [name for names in TYPES.values() for name in names.split()])
        raise _LeftOut(f"the type {row['type']!r} is not known" + (f"; {hint}" if hint else ""))
    if named == "bool":
        named = "uint16"
    if named in {"int", "uint", "float"}:  # makers mean 16 bits, floats 32, unless the map has their number
        named += str(16 * (span or (2 if named == "float" else 1)))
    if named not in WORDS:
        raise _LeftOut(f"{row['type']} in {span} registers")
    if has_bit and not named.startswith("u"):
        named = f"u{named}" if named.startswith("int") else named
    if span and span != (has := struct.calcsize(WORDS[named]) // 2):
        raise _LeftOut(f"{span} registers, and {named} has {has}")
    return {"words": named} if named != "uint16" else {}


def _order(text: str) -> str:
    plain = " ".join(text.lower().replace("endian", "-endian").replace("--", "-").replace(" -", "-").split())
    if plain in {"", "big-endian"}:
        return ""
    if order := next((order for order, names in ORDERS.items() if plain in names.split(", ")), ""):
        return order if order != "ABCD" else ""
    known = "; it can be CDAB or DCBA" if plain.startswith("little") else f"; orders: {', '.join(ORDERS)}"
    raise _LeftOut(f"the word order {text!r} is not clear{known}")


def _number(text: str, what: str = "number") -> Fraction:
    """Return 0.1, "0,1", "1/10", "/10" or "x0.1" as a number."""
    plain = text.replace(" ", "").lstrip("x×*").replace(",", ".")
    plain = f"1{plain}" if plain.startswith("/") else plain
    if not NUMBER.fullmatch(plain):
        raise _LeftOut(f"{text!r} is no number")
    found = Fraction(plain)
    if what == "divisor" and not found:
        raise _LeftOut("a divisor of 0")
    return found


def _schema(row: _Row, at: dict[str, Any]) -> dict[str, Any]:
    """Return what values the property of a row has."""
    if {"coil", "discrete"} & at.keys() or row.is_bool or ("bit" in at and "bits" not in at):
        return {"type": "boolean"}
    words = at.get("words", "uint16")
    if row["values"]:
        return {"type": "string", "enum": _named_values(row["values"], is_text=words == "string")}
    if words == "string":
        raise _LeftOut("a text of which nothing says which there are; name them in a column `values`, as off|eco|on")
    scale, offset = Fraction(str(at.get("scale", 1))), Fraction(str(at.get("offset", 0)))
    low, high = _raw_range(words, at)
    ends = sorted((low * scale + offset, high * scale + offset))
    low, high = (_number(row[kind]) if row[kind] else end for kind, end in zip(("min", "max"), ends, strict=True))
    is_whole = "float" not in words and all(one.denominator == 1 for one in (scale, offset, low, high))
    schema: dict[str, Any] = {"type": "integer" if is_whole else "number"}
    schema |= {"minimum": float(low), "maximum": float(high)}
    if unit := UNITS.get(row["unit"], row["unit"].replace("^2", "²").replace("^3", "³")):
        if unit.isdecimal():
            raise _LeftOut(f"the unit {unit} is a number; the column of unit ids is called `unit id`")
        if len(unit) > LONGEST_UNIT or unit.count(" ") > 1:
            raise _LeftOut(f"{unit!r} is too long for a unit")
        schema["unit"] = unit
    return schema


def _raw_range(words: str, at: dict[str, Any]) -> tuple[Fraction, Fraction]:
    if words.startswith("float"):
        return Fraction(-WIDEST), Fraction(WIDEST)
    bits = at.get("bits", 8 * struct.calcsize(WORDS[words]))
    return (
        (Fraction(0), Fraction(2**bits - 1))
        if words[0] == "u"
        else (Fraction(-(2 ** (bits - 1))), Fraction(2 ** (bits - 1) - 1))
    )


def _named_values(text: str, *, is_text: bool) -> list[str]:
    """Return the words of "off|eco|on" or "0=off; 1=eco; 2=on", which must count from 0."""
    words = []
    for place, part in enumerate(one.strip() for one in re.split(r"[|;,]", text)):
        number, _, word = part.rpartition("=") if "=" in part else part.rpartition(":")
        if number and number.strip() != str(place):
            raise _LeftOut(f"its values count {place}, {number.strip()}: a site has them from 0, without gaps")
        words.append(word.strip() if is_text else plain_name(word))
    if is_text and any(" " in word for word in words):
        raise _LeftOut("values with blanks in them")  # a sentence would reach the model
    return words


def _actions(row: _Row, name: str, schema: dict[str, Any], register: Register, at: dict[str, Any]) -> dict[str, Any]:
    """Return the actions that set the property of a row, and note why one that can be written has none."""
    access = re.sub(r"[^rw]", "", re.sub(r"read|only|write", lambda word: word[0][0].strip("o"), row["access"].lower()))
    writes = row.functions & WRITES
    if access == "w":
        raise _LeftOut("only written, so that nothing could be read back")
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
