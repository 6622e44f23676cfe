"""The journal: what was proposed, started and seen, durable before anything moves. SQLite, one writer."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from devices.errors import UnavailableError


class Journal:
    """An append-only list of events. Each `append` is on the disk when it returns.

    Args:
        path: the database file; None keeps it in memory (simulation, evaluation).
    """

    def __init__(self, path: Path | None = None) -> None:
        try:
            self._database = sqlite3.connect(path or ":memory:")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, command INTEGER, time_s REAL NOT NULL,"
                " event TEXT NOT NULL, body TEXT NOT NULL)"
            )
            self._database.commit()
        except sqlite3.Error as error:
            raise UnavailableError(f"cannot open the journal {path}: {error}") from error

    def append(self, event: str, body: dict[str, Any], time_s: float, command: int | None = None) -> int:
        """Write one event durably and return its id; `command` is the id of the proposal it belongs to.

        Raises:
            UnavailableError: it could not be written, so nothing that depends on it may happen.
        """
        try:
            with self._database:
                cursor = self._database.execute(
                    "INSERT INTO events (command, time_s, event, body) VALUES (?, ?, ?, ?)",
                    (command, time_s, event, json.dumps(body, sort_keys=True)),
                )
        except sqlite3.Error as error:
            raise UnavailableError(f"cannot write the journal: {error}") from error
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def events(self, command: int | None = None) -> list[dict[str, Any]]:
        """Return events in order, all or those of one command (its proposal included)."""
        query = "SELECT id, command, time_s, event, body FROM events"
        where, values = ("", ()) if command is None else (" WHERE command = ? OR id = ?", (command, command))
        rows = self._database.execute(f"{query}{where} ORDER BY id", values)
        names = ("id", "command", "time_s", "event")
        return [dict(zip(names, row[:4], strict=True)) | {"body": json.loads(row[4])} for row in rows]

    def close(self) -> None:
        """Close the database."""
        self._database.close()
