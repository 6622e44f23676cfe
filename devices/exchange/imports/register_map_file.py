"""Register maps as files: CSV with a title for each column, its rows, and in which manner it writes addresses.

Does not guard against: a map that counts from 1 and does not say so.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devices.errors import UsageError

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
WRITE_FUNCTIONS = {5, 6, 15, 16}
BOOLEANS = {"bool", "boolean", "bit", "binary", "flag", "coil"}
LEADING_DIGIT = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
STYLES = {
    "modicon": "as 40001, which is holding 0",
    "1": "from 1, as the column says",
    "0": "from 0, as the column says",
    "": "from 0, as on the wire; if the map counts from 1, call the column `address (1-based)`",
}


class LeftOut(Exception):
    """Why a row cannot be taken."""


@dataclass
class Row:
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
        return self["type"].lower() in BOOLEANS

    @property
    def table(self) -> str:
        """Its table as its column says, or "" if that says none."""
        text = " ".join(self["table"].lower().split())
        named = [table for table, words in TABLES.items() if text in words]
        found = named or sorted({FUNCTIONS[code] for code in self.functions if code in FUNCTIONS})
        if found == ["holding", "input"]:
            found = ["holding"]  # 03/04: both read it
        if text and len(found) != 1:
            raise LeftOut(f"{self['table']!r} says no table; tables: {', '.join(TABLES)}, or their function codes")
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


def read_rows(path: Path) -> tuple[dict[str, str], list[Row]]:
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
        rows.append(Row(line, {kind: cell for kind, cell in named.items() if kind}))
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


def address_style(path: Path, rows: list[Row], titles: dict[str, str]) -> str:
    """Return how addresses are written, a key of STYLES. Raises UsageError if they are written in two ways."""
    title = next(title for title, kind in titles.items() if kind == "address")
    if said := BASE_IN_TITLE.search(title):
        return "1" if said[3] or "1" in (said[1], said[4]) else "0"
    hint = "write all as 40001, or say `address (0-based)` or `address (1-based)` as the title of the column"
    fits: list[Row] = []
    others: list[Row] = []
    for row in rows:
        try:
            (others if row.modicon is None else fits).append(row)
        except LeftOut:
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
