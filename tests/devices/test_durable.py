"""Files that survive a power cut: in which order bytes, names and folders reach the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from devices.broker.journal import Journal
from devices.durable import aside_of, write_file

FULL = 2  # Source: SQLite, PRAGMA synchronous


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    plain_sync, plain_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        steps.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        plain_sync(descriptor)

    def replace(path: Path, target: Path) -> Any:
        steps.append(("rename", str(path)))
        return plain_replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    file = tmp_path / "state"
    write_file(file, b"new")
    assert file.read_bytes() == b"new" and not aside_of(file).exists()
    assert steps == [("sync", str(aside_of(file))), ("rename", str(aside_of(file))), ("sync", str(tmp_path))]


def test_the_journal_waits_for_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    assert journal._database.execute("PRAGMA synchronous").fetchone() == (FULL,)
    journal.close()
