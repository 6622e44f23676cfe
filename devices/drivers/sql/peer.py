"""An SQLite file with what a simulated world's devices know: a table of records for each, and one of properties."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from devices.driver import Binding
from devices.drivers.sql.driver import SqlSettings
from devices.simulation.peer import RealTimeWorld


class SqlPeer:
    """The file behind one `sql` driver of a site; it shows the world as it was when it was made."""

    def __init__(self, settings: SqlSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        self._path, self._bindings, self._world = Path(settings.file), bindings, world
        self._is_ours = False  # a database that was there before is never touched

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    def start(self) -> None:
        """Write the file. Raises OSError if there is one already."""
        self._path.touch(exist_ok=False)
        self._is_ours = True
        with self._world.now() as world, closing(sqlite3.connect(self._path)) as database, database:
            database.execute("CREATE TABLE state (device TEXT, name TEXT, value)")
            for device in self._bindings:
                for name, value in world.values_of(device).items():
                    database.execute("INSERT INTO state VALUES (?, ?, ?)", (device, name, value))
                records = world.records[device]
                if not records:
                    continue
                columns = list(dict.fromkeys(name for record in records for name in record))
                database.execute(f"CREATE TABLE {device} ({', '.join(columns)})")
                marks = ", ".join("?" * len(columns))
                rows = [[record.get(name) for name in columns] for record in records]
                database.executemany(f"INSERT INTO {device} VALUES ({marks})", rows)  # noqa: S608 - names are the site's

    def stop(self) -> None:
        """Take the file away, if it was made here."""
        if self._is_ours:
            self._path.unlink(missing_ok=True)
            self._is_ours = False
