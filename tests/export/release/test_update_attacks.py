"""A sample of benchmarks/update_attacks.py, and that it would notice what it looks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.update_attacks import APART, SHARES, Publisher, attacks, sites_parsed_once, storm
from edge_agent import bundle
from export.flash import flash
from export.release.sources import FolderSource

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # connections that are left in the middle of an answer
]
COUNT, APART_COUNT, SEED = 100, 10, 7


@pytest.fixture(autouse=True)
def nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is on the disk is what test_release_killed.py looks at."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def test_what_was_changed_is_refused_in_words_or_without_meaning(tmp_path: Path) -> None:
    found = attacks(COUNT, SEED, tmp_path, APART_COUNT)
    firsts = {door: one["first"] for door, one in found["doors"].items()}
    assert (found["attacks"], found["accepted"], found["crashed"], found["harmed"]) == (COUNT, 0, 0, 0), firsts
    assert found["refused"] > COUNT / 2 and found["doors"].keys() == SHARES.keys()
    assert [found["counted_apart"][door]["crashed"] for door in APART] == [0, 0], found["counted_apart"]


def unread(self: FolderSource, path: str, offset: int = 0) -> Iterator[bytes]:
    raise KeyError(path)


@pytest.mark.parametrize(
    ("door", "sabotage", "came"),
    [
        (
            "flash",
            ((bundle, "require_content", lambda *_: None), (flash, "require_content", lambda *_: None)),
            "accepted",
        ),
        ("pull from a folder", ((FolderSource, "read", unread),), "crashed"),
    ],
)
def test_it_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: str, sabotage: tuple[tuple[Any, str, Any], ...], came: str
) -> None:
    with sites_parsed_once(), closing(Publisher(tmp_path, SEED)) as world:
        for where, name, what in sabotage:
            monkeypatch.setattr(where, name, what)
        assert storm(world, door, 2 * COUNT)[came] > 0
