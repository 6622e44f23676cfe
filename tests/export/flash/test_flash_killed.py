"""A flash or a rollback that is killed at any line leaves a box with a whole bundle, and the next one works."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from edge_agent.bundle import CURRENT, PREVIOUS, Bundle, verify_files
from export.flash import flash as flashing
from export.flash.flash import install, rollback
from tests.export.flash.test_flash import linked, require_no_leftovers
from tests.tiny_bundle import parse_sites_once

KILLED = 9


@pytest.fixture(autouse=True)
def quick_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_sites_once(monkeypatch)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where fsync costs nothing."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


FLASH_FILES = frozenset({flashing.__file__, flashing.sync.__code__.co_filename})


def killed_at_line(count: int, work: Callable[[], object], files: Set[str] = FLASH_FILES) -> bool:
    """Do work in a child process that dies at its count-th line in some files; return whether it died.

    A line counts the first two times it runs: every file is copied by the same lines.
    """
    lines = 0
    times: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        place = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and times[place] < 2:
            times[place] += 1
            lines += 1
            if lines == count:
                os._exit(KILLED)
        return trace

    child = os.fork()
    if child == 0:
        try:
            sys.settrace(trace)
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_at_any_line_the_box_has_a_whole_bundle(three: list[Bundle], quick: Path) -> None:
    one, two, three_ = three
    ready = quick / "ready"
    install(one, ready)
    install(two, ready)
    count, seen = 1, set()
    while True:
        box = quick / f"box{count}"
        shutil.copytree(ready, box, symlinks=True)
        died = killed_at_line(count, lambda box=box: install(three_, box))  # type: ignore[misc]
        current = linked(box, CURRENT)
        assert verify_files(box / CURRENT).id == current, count
        assert verify_files(box / PREVIOUS).id == linked(box, PREVIOUS), count
        seen.add(current)
        install(three_, box)  # and the next flash works and cleans up
        assert verify_files(box / CURRENT).id == three_.manifest.id, count
        assert linked(box, PREVIOUS) == two.manifest.id, count
        require_no_leftovers(box)
        shutil.rmtree(box)
        if not died:
            break
        count += 1
    assert count > 100
    assert seen == {two.manifest.id, three_.manifest.id}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_killed_at_any_line_of_a_rollback_the_box_has_a_whole_bundle(three: list[Bundle], quick: Path) -> None:
    install(three[0], quick)
    install(three[1], quick)
    count = 1
    while killed_at_line(count, lambda: rollback(quick)):
        assert verify_files(quick / CURRENT).id == linked(quick, CURRENT), count
        install(three[0], quick)
        install(three[1], quick)
        count += 1
    assert count > 20
    assert linked(quick, CURRENT) == three[0].manifest.id
