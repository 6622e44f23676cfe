"""Flashes, rollbacks and starts at the same time: `current` leads to a whole bundle at every moment."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from devices.errors import UnavailableError
from edge_agent.bundle import BUNDLES, CURRENT, PREVIOUS, Bundle, hold_bundle, open_bundle, verify_files
from export.flash.flash import install, rollback
from tests.interleaving import Interleaved
from tests.tiny_bundle import make_tiny_bundle, parse_sites_once

ROUNDS = 500


@pytest.fixture(scope="module")
def quick() -> Iterator[Path]:
    """A folder in memory, where fsync costs nothing."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def four(quick: Path) -> list[Bundle]:
    return [open_bundle(make_tiny_bundle(quick / "source" / str(fill), fill)) for fill in range(4)]


class Box:
    """A box on which things are done at once, and what came of each."""

    def __init__(self, root: Path, bundles: list[Bundle], rng: Random) -> None:
        self.root, self.bundles, self.rng = root, bundles, rng
        self.sizes = {
            one.manifest.id: {path.name: path.stat().st_size for path in one.path.iterdir()} for one in bundles
        }
        self.held: list[Path] = []
        self.ends: Counter[str] = Counter()

    def require_whole(self) -> None:
        """`current` leads to a bundle with all its files, and what a start holds has them; contents: end of a round."""
        for folder in (self.root / (self.root / CURRENT).readlink(), *self.held):
            found = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
            assert found == self.sizes[folder.name], f"{folder.name} has {sorted(found)}"

    def flash(self) -> None:
        install(self.rng.choice(self.bundles), self.root)

    def rollback(self) -> None:
        rollback(self.root)

    def start(self) -> None:
        """Open the current bundle as an agent does, and read its files again while it is held, as its engine does."""
        with ExitStack() as stack:
            bundle = stack.enter_context(hold_bundle(self.root))
            self.held.append(bundle.path)
            stack.callback(self.held.remove, bundle.path)
            assert verify_files(bundle.path) == bundle.manifest

    def work(self, *steps: Callable[[], None]) -> Callable[[], None]:
        """Return steps one after the other; one that meets another flash's lock is refused in one line."""

        def do() -> None:
            for step in steps:
                try:
                    step()
                    self.ends[f"{step.__name__} done"] += 1
                except UnavailableError as error:
                    if "another flash is under way" not in str(error):
                        raise
                    self.ends[f"{step.__name__} refused"] += 1

        return do


def one_round(seed: int, folder: Path, bundles: list[Bundle], monkeypatch: pytest.MonkeyPatch) -> tuple[Box, int]:
    """Do random things at once on a box that has two bundles; return it and how often they changed over."""
    rng = Random(seed)
    box = Box(folder / f"box{seed}", bundles, rng)
    pair = rng.sample(bundles, 2)
    ready = folder / "ready" / "-".join(one.manifest.id for one in pair)
    if not ready.exists():
        ready.parent.mkdir(exist_ok=True)
        for bundle in pair:
            install(bundle, ready)
    shutil.copytree(ready, box.root, symlinks=True)
    first = box.work(*rng.choice([[box.flash], [box.flash, box.flash]]))
    second = box.work(*rng.choice([[box.flash], [box.rollback], [box.start], [box.flash, box.rollback]]))
    with monkeypatch.context() as patching:
        run = Interleaved(seed, box.require_whole)
        run.patch(patching)
        run.run([first, second])
    for link in (CURRENT, PREVIOUS):
        assert verify_files(box.root / link).id == (box.root / link).readlink().name
    install(bundles[0], box.root)  # the next one finds nothing that stops it, and leaves nothing
    assert open_bundle(box.root).manifest == bundles[0].manifest
    left = {path.name for path in (box.root / BUNDLES).iterdir()}
    assert left == {(box.root / link).readlink().name for link in (CURRENT, PREVIOUS)}
    shutil.rmtree(box.root)
    return box, run.changes_over


def test_current_is_whole_at_every_moment(four: list[Bundle], quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_sites_once(monkeypatch)
    ends: Counter[str] = Counter()
    changes_over = 0
    for seed in range(ROUNDS):
        box, count = one_round(seed, quick, four, monkeypatch)
        ends += box.ends
        changes_over += count
    assert changes_over > 3 * ROUNDS
    done = {"flash done", "flash refused", "rollback done", "rollback refused", "start done"}
    assert set(ends) == done  # starts are never refused
    assert min(ends.values()) > ROUNDS // 20, ends
