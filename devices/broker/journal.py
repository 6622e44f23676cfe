"""The journal: what was proposed, decided, started and seen, durable before anything moves. SQLite, one writer.

Every event carries a digest over itself and the digest before it, so that a changed, removed or inserted event breaks
the chain. Whoever writes down the last digest elsewhere (`edgewright log --verify` prints it) also finds a journal that
was cut off or written anew.

Does not guard against: someone who rewrites the whole chain where no digest was kept elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from devices.errors import RefusedError, UnavailableError, UsageError

JOURNAL_IN_BOX = Path("state") / "journal.sqlite"
FIRST_DIGEST = "0" * 64
_SELECT = "SELECT id, command, time_s, event, body, digest FROM events"


@dataclass(frozen=True)
class Event:
    """One entry.

    Attributes:
        id: 1, 2, 3, …
        command: id of the proposal it belongs to; None for a proposal itself and for what belongs to none.
        time_s: on the broker's clock.
        event: PROPOSED, STARTED, DONE, REFUSED, …
        body: what there is to say, as JSON.
        digest: SHA-256 in hex over the digest before it and all of the above.
    """

    id: int
    command: int | None
    time_s: float
    event: str
    body: dict[str, Any]
    digest: str

    def chained(self, before: str) -> str:
        """Return the digest that this event must have after the one before it."""
        plain = asdict(self) | {"digest": before}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class Journal:
    """An append-only list of events. Each `append` is on the disk when it returns. Safe to use from several threads.

    Args:
        path: the database file; None keeps it in memory (simulation, evaluation).

    Attributes:
        listeners: each is called with every event once it is written, in the thread that wrote it; they must not block.

    Raises:
        UnavailableError: it cannot be opened, or another process writes it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.listeners: list[Callable[[Event], None]] = []
        self._lock = _lock(path) if path else None
        self._using = threading.Lock()  # SQLite does not survive a database that is closed in the middle of a write
        try:
            self._database = sqlite3.connect(path or ":memory:", check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")  # with WAL, NORMAL loses the last events in a power cut
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, command INTEGER, time_s REAL NOT NULL,"
                " event TEXT NOT NULL, body TEXT NOT NULL, digest TEXT NOT NULL)"
            )
            self._database.execute("CREATE INDEX IF NOT EXISTS events_by_command ON events (command)")
            self._database.commit()
            last = self._database.execute("SELECT id, digest FROM events ORDER BY id DESC LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise UnavailableError(f"cannot open the journal {path}: {error}") from error
        self._last_id: int = last[0] if last else 0
        self._last_digest: str = last[1] if last else FIRST_DIGEST

    def append(self, event: str, body: dict[str, Any], time_s: float, command: int | None = None) -> int:
        """Write one event durably and return its id; `command` is the id of the proposal it belongs to.

        Raises:
            UnavailableError: it could not be written, so nothing that depends on it may happen.
        """
        with self._using:
            entry = Event(self._last_id + 1, command, float(time_s), event, body, "")
            digest = entry.chained(self._last_digest)
            try:
                with self._database:
                    self._database.execute(
                        "INSERT INTO events (id, command, time_s, event, body, digest) VALUES (?, ?, ?, ?, ?, ?)",
                        (entry.id, command, entry.time_s, event, json.dumps(body, sort_keys=True), digest),
                    )
            except sqlite3.Error as error:
                raise UnavailableError(f"cannot write the journal: {error}") from error
            self._last_id, self._last_digest = entry.id, digest
        written = replace(entry, digest=digest)
        for listener in self.listeners:
            listener(written)
        return entry.id

    def events(self, command: int | None = None) -> list[Event]:
        """Return events in order, all or those of one command (its proposal included)."""
        with self._using:
            return list(_events(self._database, command))

    def latest(self, count: int) -> list[Event]:
        """Return the last events, the latest last."""
        with self._using:
            rows = self._database.execute(_SELECT + " ORDER BY id DESC LIMIT ?", (count,)).fetchall()
        return [_event(row) for row in reversed(rows)]

    def stream(self) -> Iterator[Event]:
        """Yield all events in order, one at a time: a journal of years need not fit into memory."""
        return _events(self._database)

    def close(self) -> None:
        """Close the database and let others write it."""
        with self._using:
            self._database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int:
    try:
        # a file of its own: closing any handle of the database would drop SQLite's own locks on it
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UnavailableError(f"cannot open the journal {path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise UnavailableError(
            f"another controller writes the journal {path}", hint="one at a time: stop it"
        ) from error
    return handle


def _events(database: sqlite3.Connection, command: int | None = None) -> Iterator[Event]:
    where = "" if command is None else " WHERE id = :of OR command = :of"
    yield from map(_event, database.execute(_SELECT + where + " ORDER BY id", {"of": command}))


def _event(row: tuple[int, int | None, float, str, str, str]) -> Event:
    number, owner, time_s, name, body, digest = row
    return Event(number, owner, time_s, name, json.loads(body), digest)


def journal_path(box_or_file: Path) -> Path:
    """Return the journal file of a box's root, or the file itself."""
    return box_or_file / JOURNAL_IN_BOX if box_or_file.is_dir() else box_or_file


def read_events(path: Path, command: int | None = None) -> Iterator[Event]:
    """Yield the events of a journal file, also while a controller writes it.

    Raises:
        UsageError: no such file, or not a journal.
        RefusedError: an entry cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no journal {path}")
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            yield from _events(database, command)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise UsageError(f"{path} is not a journal: {error}") from error
    except ValueError as error:
        raise RefusedError(f"{path}: an entry cannot be read: {error}") from error


def verify_events(events: Iterator[Event], expected_digest: str = "") -> tuple[int, str]:
    """Check that a journal is whole and unchanged.

    Args:
        events: all of them, in order.
        expected_digest: a last digest that was noted earlier; it must still be in the chain.

    Returns:
        How many events there are, and the last digest.

    Raises:
        RefusedError: an event was changed, removed or inserted, or the digest noted earlier is gone.
    """
    count, digest, is_found = 0, FIRST_DIGEST, expected_digest in {"", FIRST_DIGEST}
    for event in events:
        if event.id != count + 1:
            raise RefusedError(f"event {count + 1} is missing: event {event.id} comes after {count}")
        if event.digest != event.chained(digest):
            raise RefusedError(f"event {event.id} is not what was written, or one before it was removed")
        count, digest = event.id, event.digest
        is_found = is_found or digest == expected_digest
    if not is_found:
        raise RefusedError(
            f"no event has the digest {expected_digest}", hint="the journal was cut off or written anew since"
        )
    return count, digest
