"""Read-only SQL: what an SQLite database knows, by queries that stand in the site file.

Under `drivers` of a site file: `shop: {type: sql, file: /var/lib/shop.sqlite, hide: [customers.email]}`. Under a
device, for each property, `at: {waiting: {query: "SELECT count(*) FROM orders WHERE status = 'open'"}}`, and under an
action with output `at: {query: "SELECT status, total FROM orders WHERE id = :order"}`, whose columns are its output.

The file is opened read-only; an authorizer lets queries read tables and columns that are not hidden, and nothing else;
a query that takes too long is ended. Arguments are bound, never pasted. Source: SQLite, "URI filenames", "Compile-time
authorization callbacks", "Query progress callbacks".

Does not guard against: what a view that the database's owner made shows under other names.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Needs, Reading, reading_of
from devices.site.action import Action
from devices.site.functions import FunctionAction
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict

LISTED_ROWS = 50  # that a function answers with
MAX_ROWS = 1  # the model asks about one thing; a query that finds more is answered with the first
STEPS = 1000  # of SQLite's machine, between two looks at the clock
BANNED_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}


class SqlSettings(Strict):
    """Which database, what of it nobody may see (`table.column`, or a whole `table`), and how long a query may take."""

    type: Literal["sql"]
    file: str = Field(min_length=1)
    hide: tuple[str, ...] = Field(default=(), strict=False)
    timeout_s: float = Field(default=1.0, gt=0)


class Query(Strict):
    """One query that reads; arguments of the action are `:name` in it."""

    query: str

    @field_validator("query")
    @classmethod
    def _require_reading(cls, query: str) -> str:
        if query.split(maxsplit=1)[:1] not in (["SELECT"], ["WITH"]):
            raise ValueError("a query begins with SELECT or WITH")
        return query

    def problem_with(self, action: Action) -> str:
        """Return why the query does not fit its action, or ""."""
        taken = action.parameters.get("properties", {}) if isinstance(action, FunctionAction) else action.input
        missing = [name for name in taken if f":{name}" not in self.query]
        return f"does not use {missing[0]} in its query" if missing else ""


class SqlDriver:
    """One database. Every query has its own connection; safe to use from several threads."""

    def __init__(self, settings: SqlSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._bindings, self._clock = settings, bindings, clock
        self._hidden = {name.lower() for name in settings.hide}

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device; what does not fit its schema is marked bad."""
        binding = self._bindings[device]
        found: dict[str, Reading] = {}
        for name, place in binding.at.items():
            row = self._first_row(device, place.query, {})
            schema = binding.device.properties[name]
            found[name] = reading_of(partial(_only_value, row, schema), schema, self._clock())
        return found

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Databases are only read."""
        raise DeviceUnavailable(f"{device} is only read")

    def call(self, device: str, action: str, arguments: Mapping[str, Value], key: str) -> dict[str, Any] | None:
        """Return the columns of the first row that an action's query finds, or None; for a function, all rows."""
        del key  # nothing changes
        binding = self._bindings[device]
        called = binding.device.actions[action]
        if isinstance(called, FunctionAction):
            bound = {**dict.fromkeys(called.parameters.get("properties", {})), **arguments}  # NULL is one left out
            rows = self._rows(device, binding.calls[action].query, bound, LISTED_ROWS)
            return {"rows": [dict(row) for row in rows]}
        row = self._first_row(device, binding.calls[action].query, arguments)
        if row is None:
            return None
        output = binding.device.actions[action].output
        return {name: to_value(cell, output.get(name)) for name, cell in dict(row).items()}

    def close(self) -> None:
        """Nothing is kept open."""

    def _first_row(self, device: str, query: str, arguments: Mapping[str, Value]) -> sqlite3.Row | None:
        return next(iter(self._rows(device, query, arguments, MAX_ROWS)), None)

    def _rows(self, device: str, query: str, arguments: Mapping[str, Any], most: int) -> list[sqlite3.Row]:
        try:
            with self._opened() as database:
                return database.execute(query, dict(arguments)).fetchmany(most)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise DeviceUnavailable(f"{device}: {self._settings.file}: {error}") from error

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        uri = f"{Path(self._settings.file).absolute().as_uri()}?mode=ro"
        deadline_s = time.monotonic() + self._settings.timeout_s
        with closing(sqlite3.connect(uri, uri=True, timeout=self._settings.timeout_s)) as database:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA query_only = ON")
            database.execute("PRAGMA trusted_schema = OFF")
            database.set_progress_handler(lambda: time.monotonic() > deadline_s, STEPS)
            database.set_authorizer(self._authorize)
            yield database

    def _authorize(self, what: int, first: str | None, second: str | None, *_: Any) -> int:
        if what == sqlite3.SQLITE_READ:
            table, column = str(first).lower(), str(second).lower()
            is_hidden = bool({table, f"{table}.{column}"} & self._hidden) or table.startswith("sqlite_")
            return sqlite3.SQLITE_DENY if is_hidden else sqlite3.SQLITE_OK
        if what == sqlite3.SQLITE_FUNCTION and str(second).lower() not in BANNED_FUNCTIONS:
            return sqlite3.SQLITE_OK
        allowed = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}
        return sqlite3.SQLITE_OK if what in allowed else sqlite3.SQLITE_DENY


def _only_value(row: sqlite3.Row | None, schema: DataSchema) -> Value:
    if row is None or len(row) != 1:
        raise ValueError("the query finds no single value")
    value = to_value(row[0], schema)
    if value is None:
        raise ValueError("the value is NULL")
    return value


def to_value(raw: Any, schema: DataSchema | None) -> Any:
    """Return a cell as the schema has it: SQLite knows no booleans, and keeps whole floats as they are written."""
    if schema is None or raw is None:
        return raw
    if schema.type == "boolean" and raw in (0, 1):
        return bool(raw)
    return float(raw) if schema.type == "number" and isinstance(raw, int) else raw


DRIVER = DriverType(
    settings=SqlSettings,
    address=Query,
    open=SqlDriver,
    problem_with=lambda settings, place, is_written: "cannot be written: a database is only read" if is_written else "",
    call_address=Query,
    call_problem_with=lambda settings, query, action: query.problem_with(action),
    needs=lambda settings: Needs(reads=(settings.file,)),
)
