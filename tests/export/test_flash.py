"""Whatever happens while a bundle is flashed, the box opens a whole bundle, and nothing is left over."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from devices.errors import EdgeError, RefusedError, UnavailableError, UsageError
from edge_agent.bundle import (
    BUNDLES,
    CURRENT,
    MANIFEST,
    MODEL,
    PREVIOUS,
    Bundle,
    BundleTampered,
    open_bundle,
    verify_files,
)
from export import flash as flashing
from export.flash import flash, install, rollback
from tests.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[2]
KILLED = 9


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return [open_bundle(make_tiny_bundle(folder / name, fill)) for fill, name in enumerate(("one", "two", "three"))]


def ids_on(box: Path) -> set[str]:
    return {path.name for path in (box / BUNDLES).iterdir()}


def linked(box: Path, link: str) -> str:
    return (box / link).readlink().name


def require_no_leftovers(box: Path) -> None:
    """The box has its links, the bundles they lead to, and nothing else."""
    links = {name for name in (CURRENT, PREVIOUS) if (box / name).is_symlink()}
    assert {path.name for path in box.iterdir()} == {BUNDLES, *links}
    assert ids_on(box) == {linked(box, link) for link in links}


def test_flash_makes_a_bundle_current(three: list[Bundle], tmp_path: Path) -> None:
    box = tmp_path / "box"
    report = flash(three[0].path, box)
    assert open_bundle(box).manifest == three[0].manifest
    assert report.id == three[0].manifest.id
    assert report.previous == ""
    require_no_leftovers(box)


def test_the_last_two_are_kept(three: list[Bundle], tmp_path: Path) -> None:
    for bundle in three:
        install(bundle, tmp_path)
    assert linked(tmp_path, CURRENT) == three[2].manifest.id
    assert linked(tmp_path, PREVIOUS) == three[1].manifest.id
    require_no_leftovers(tmp_path)


def test_flashing_the_current_bundle_again_changes_nothing(three: list[Bundle], tmp_path: Path) -> None:
    install(three[0], tmp_path)
    install(three[1], tmp_path)
    assert install(three[1], tmp_path).copied_bytes == 0
    assert linked(tmp_path, PREVIOUS) == three[0].manifest.id


def test_flashing_repairs_a_damaged_copy(three: list[Bundle], tmp_path: Path) -> None:
    install(three[0], tmp_path)
    (tmp_path / CURRENT / MODEL).write_bytes(b"damaged")
    with pytest.raises(BundleTampered):
        open_bundle(tmp_path)
    install(three[0], tmp_path)
    assert open_bundle(tmp_path).manifest == three[0].manifest
    require_no_leftovers(tmp_path)


def test_a_dry_run_changes_nothing(three: list[Bundle], tmp_path: Path) -> None:
    report = flash(three[0].path, tmp_path / "box", dry_run=True)
    assert report.copied_bytes > 0
    assert any("switch" in step for step in report.steps)
    assert not (tmp_path / "box").exists()


def test_progress_counts_every_byte(three: list[Bundle], tmp_path: Path) -> None:
    told: list[int] = []
    assert flash(three[0].path, tmp_path, progress=told.append).copied_bytes == sum(told)


def test_a_tampered_source_is_not_copied(three: list[Bundle], tmp_path: Path) -> None:
    source = Path(shutil.copytree(three[0].path, tmp_path / "source"))
    (source / "site.yaml").write_text("x", encoding="utf-8")
    with pytest.raises(BundleTampered, match=r"site\.yaml"):
        flash(source, tmp_path / "box")
    assert not (tmp_path / "box").exists()


def test_a_target_whose_parent_is_missing_is_a_usage_error(three: list[Bundle], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        flash(three[0].path, tmp_path / "not" / "mounted")


def test_a_second_flash_at_the_same_time_is_refused(three: list[Bundle], tmp_path: Path) -> None:
    with flashing._locked(tmp_path), pytest.raises(UnavailableError, match="another flash"):
        install(three[0], tmp_path)
    install(three[0], tmp_path)


def test_rollback_swaps_and_swaps_back(three: list[Bundle], tmp_path: Path) -> None:
    install(three[0], tmp_path)
    install(three[1], tmp_path)
    rollback(tmp_path)
    assert open_bundle(tmp_path).manifest == three[0].manifest
    rollback(tmp_path)
    assert open_bundle(tmp_path).manifest == three[1].manifest
    require_no_leftovers(tmp_path)


def test_rollback_without_a_previous_bundle_is_refused(three: list[Bundle], tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no previous"):
        rollback(tmp_path / "none")
    install(three[0], tmp_path)
    with pytest.raises(RefusedError, match="no previous"):
        rollback(tmp_path)
    assert open_bundle(tmp_path).manifest == three[0].manifest


def test_rollback_to_a_damaged_bundle_is_refused(three: list[Bundle], tmp_path: Path) -> None:
    install(three[0], tmp_path)
    install(three[1], tmp_path)
    (tmp_path / PREVIOUS / MODEL).write_bytes(b"damaged")
    with pytest.raises(BundleTampered):
        rollback(tmp_path)
    assert open_bundle(tmp_path).manifest == three[1].manifest


def test_a_dry_rollback_changes_nothing(three: list[Bundle], tmp_path: Path) -> None:
    install(three[0], tmp_path)
    install(three[1], tmp_path)
    assert rollback(tmp_path, dry_run=True).id == three[0].manifest.id
    assert open_bundle(tmp_path).manifest == three[1].manifest


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where fsync costs nothing."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def killed_at_line(count: int, work: Callable[[], object]) -> bool:
    """Do work in a child process that dies at its count-th line in flash.py or durable.py; return whether it died.

    A line counts the first two times it runs: every file is copied by the same lines.
    """
    files = {flashing.__file__, flashing.sync.__code__.co_filename}
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


@pytest.mark.parametrize("name", ["fsync", "replace", "posix_fadvise"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_an_io_error_leaves_everything_as_it_was(
    three: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    install(three[0], tmp_path)
    real, calls = getattr(os, name), 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    monkeypatch.setattr(os, name, failing)
    try:
        install(three[1], tmp_path)
    except UnavailableError as error:
        assert "Input/output error" in str(error)  # noqa: PT017 (it may also not be reached)
    monkeypatch.undo()
    assert open_bundle(tmp_path).manifest in (three[0].manifest, three[1].manifest)
    require_no_leftovers(tmp_path)


@pytest.mark.parametrize("limit_bytes", [0, 100, 1500, 4000])
def test_a_write_that_does_not_fit_is_one_clear_line(three: list[Bundle], tmp_path: Path, limit_bytes: int) -> None:
    install(three[0], tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        with pytest.raises(UnavailableError, match=r"^disk full"):
            install(three[1], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert open_bundle(tmp_path).manifest == three[0].manifest
    require_no_leftovers(tmp_path)


FULL_DISK = """
import sys
from pathlib import Path
from devices.errors import UnavailableError
from edge_agent.bundle import open_bundle
from export import flash
from tests.export.test_flash import require_no_leftovers
box, one, two = map(Path, sys.argv[1:])
flash.flash(one, box)
filler = box.parent / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
for ask_first in (True, False):
    if not ask_first:
        flash._require_space = lambda target, size_bytes: None  # somebody filled the disk after the check
    try:
        flash.flash(two, box)
    except UnavailableError as error:
        print(error)
    assert open_bundle(box).manifest.id == open_bundle(one).manifest.id
    require_no_leftovers(box)
filler.unlink()
flash.flash(two, box)
assert open_bundle(box).manifest.id == open_bundle(two).manifest.id
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting a small disk needs root")
def test_a_disk_that_is_really_full(three: list[Bundle], tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=2m tmpfs "{tmp_path}" || exit 77; exec "$@"'
    script = [sys.executable, "-c", FULL_DISK, str(tmp_path / "box"), str(three[0].path), str(three[1].path)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *script],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("disk full: the bundle needs ")
    assert "MB are free" in first
    assert second.startswith("disk full while writing to ")


def test_every_failure_is_explained() -> None:
    with pytest.raises(EdgeError), flashing._explained(Path("/box")):
        raise OSError(28, "No space left on device")


def test_the_manifest_is_copied_last(three: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    real = flashing._copy_file
    monkeypatch.setattr(flashing, "_copy_file", lambda source, *rest: (copied.append(source.name), real(source, *rest)))
    install(three[0], tmp_path)
    assert copied[-1] == MANIFEST
