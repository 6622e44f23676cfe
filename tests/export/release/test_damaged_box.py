"""A box whose own trust, cache or half-fetched files are damaged says so in a line, or goes on."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from devices.errors import RefusedError, UnavailableError
from edge_agent import bundle
from edge_agent.bundle import MODEL, BundleTampered, open_bundle
from export.flash.flash import STAGING
from export.flash.receive import receive
from export.release import pull as pulling
from export.release.layout import METADATA
from export.release.trust import BOX_ID, FLOOR, TRUST
from tests.export.release.test_release import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish(0)
    made.pull()
    made.publish(1)
    return made


def test_what_was_half_fetched_and_is_damaged_is_fetched_again_at_once(world: World) -> None:
    folder = world.box / STAGING / open_bundle(world.bundles[1]).manifest.id
    folder.mkdir(parents=True)
    (folder / f"{MODEL}.part").write_bytes(b"damaged")
    assert world.pull() == "installed" and world.has(1)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"\xff\x00"), Path.unlink])
def test_a_box_with_a_damaged_id_has_some_place_in_the_waves(world: World, damage: Any) -> None:
    damage(world.box / TRUST / BOX_ID)
    assert world.pull() == "installed"
    assert (world.box / TRUST / BOX_ID).is_file()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"versions": {"root": "1"}}', "\xff", '{"versions": {"targeTs": 1}}', '{"keys": {"x": []}}',
     '{"sequences": {"../x": 1}}'],
)  # fmt: skip
def test_a_damaged_floor_is_named(world: World, text: str) -> None:
    (world.box / TRUST / FLOOR).write_text(text, encoding="latin-1")
    with pytest.raises(RefusedError, match="is damaged"):
        world.pull()
    assert world.has(0)


def test_a_cache_that_cannot_be_written_is_named(world: World) -> None:
    cached = world.box / TRUST / METADATA / "timestamp.json"
    cached.unlink()
    cached.mkdir()
    with pytest.raises(UnavailableError, match="cannot write to"):
        world.pull()
    assert world.has(0)


def test_a_disk_that_is_full_while_it_fetches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pulling, "_fetch", full)
    with pytest.raises(UnavailableError, match="disk full"):
        world.pull()
    assert world.has(0)


def test_no_file_is_larger_than_a_disk_can_be(world: World) -> None:
    """A sum of such bytes would not even fit a float, in which megabytes are told."""
    plain = open_bundle(world.bundles[2]).manifest.model_dump(by_alias=True)
    plain["files"][MODEL]["bytes"] = 10**400
    text = json.dumps(plain | {"sha256": bundle._digest_of(plain)}, indent=2)
    with pytest.raises(BundleTampered, match="less than or equal"):
        receive(world.box, f"{text}\n".encode())
