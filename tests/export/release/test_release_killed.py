"""A pull that is killed at any line, and one under any clock, leaves a box whole, and nothing it saw forgotten."""

from __future__ import annotations

import datetime
import shutil
import types
from pathlib import Path
from random import Random

import pytest
import tuf.ngclient.updater
from tuf.ngclient._internal import trusted_metadata_set

from devices.errors import EdgeError
from edge_agent.bundle import CURRENT, verify_files
from export.flash import receive
from export.release import pull as pulling
from export.release import trust
from export.release.sources import FolderSource
from tests.export.flash.test_flash_killed import FLASH_FILES, killed_at_line
from tests.export.release.test_release import World
from tests.tiny_bundle import parse_sites_once

FILES = FLASH_FILES | {str(module.__file__) for module in (pulling, trust, receive, tuf.ngclient.updater)}
EVERY = 5  # of the lines, in the fast suite
LINES = 250  # at least, at which a pull is killed


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    parse_sites_once(monkeypatch)
    made = World(tmp_path)
    made.publish(0)
    made.pull()
    return made


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_line_the_box_has_a_whole_bundle_and_forgets_nothing(world: World, every: int) -> None:
    ready = world.box.rename(world.folder / "ready")
    world.publish(1)
    floor, count, seen = world.seen(ready), 1, set()
    while True:
        shutil.copytree(ready, world.box, symlinks=True)
        died = killed_at_line(count, world.pull, FILES)
        assert verify_files(world.box / CURRENT).id == (world.box / CURRENT).readlink().name, count
        assert all(world.seen()[role] >= version for role, version in floor.items()), count
        seen.add(world.has(1))
        assert world.pull() in ("installed", "current") and world.has(1), count
        shutil.rmtree(world.box)
        if not died:
            break
        count += every
    assert count > LINES and seen == {True, False}, count


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 200))])
def test_under_any_clock_nothing_older_is_installed(world: World, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, now = Random(seed), datetime.datetime.now(datetime.UTC)
    copies, installed = [world.copy("copy0")], 1
    for number in range(1, 6):
        world.publish(number % 2)
        copies.append(world.copy(f"copy{number}"))
        year = rng.choice([1970, 2038, now.year, now.year])
        clock = (now if year == now.year else datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)) + datetime.timedelta(
            days=rng.choice([-400, -1, 0, 0, 1, 40])
        )
        said = types.SimpleNamespace(now=lambda zone, clock=clock: clock.astimezone(zone))
        fake = types.SimpleNamespace(datetime=said, timezone=datetime.timezone)
        monkeypatch.setattr(trusted_metadata_set, "datetime", fake)
        for copy in rng.sample(copies, min(3, len(copies))):
            try:
                installed_now = pulling.pull(world.box, FolderSource(copy)).release
            except EdgeError:
                continue
            assert installed_now >= installed
            installed = installed_now
        assert verify_files(world.box / CURRENT)
    monkeypatch.undo()
    assert world.pull() in ("installed", "current")
