"""Whatever happens while a bundle is flashed, the box opens a whole bundle, and nothing is left over."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from devices.errors import EdgeError, GateError, RefusedError, UnavailableError, UsageError
from edge_agent.bundle import (
    BUNDLES,
    CURRENT,
    MANIFEST,
    MODEL,
    PREVIOUS,
    Bundle,
    BundleTampered,
    hold_bundle,
    open_bundle,
    verify_files,
)
from edge_agent.progress import Progress
from export.flash import flash as flashing
from export.flash.flash import flash, install, rollback
from tests.tiny_bundle import make_tiny_bundle, parse_sites_once, rewrite_manifest

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quick_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_sites_once(monkeypatch)


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
    summary: list[int] = []
    sizes: list[int] = []

    def progress_bar(label: str, size_bytes: int) -> AbstractContextManager[Progress]:
        del label
        sizes.append(size_bytes)
        return nullcontext(summary.append)

    report = flash(three[0].path, tmp_path, progress_bar=progress_bar)
    assert report.copied_bytes == sum(summary) and sizes == [sum(summary)]
    flash(three[0].path, tmp_path, progress_bar=progress_bar)  # nothing to copy
    assert len(sizes) == 1


def test_a_tampered_source_is_not_copied(three: list[Bundle], tmp_path: Path) -> None:
    source = Path(shutil.copytree(three[0].path, tmp_path / "source"))
    (source / "site.yaml").write_text("x", encoding="utf-8")
    with pytest.raises(BundleTampered, match=r"site\.yaml"):
        flash(source, tmp_path / "box")
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_source_with_a_flipped_bit_is_not_made_current(three: list[Bundle], tmp_path: Path, is_there: bool) -> None:
    install(three[1], tmp_path / "box")
    if is_there:  # the box's own copy is whole: all the same, the person hears that this one is not
        install(three[0], tmp_path / "box")
        install(three[1], tmp_path / "box")
    source = Path(shutil.copytree(three[0].path, tmp_path / "source"))
    data = bytearray((source / MODEL).read_bytes())
    data[-1] ^= 1
    (source / MODEL).write_bytes(data)
    for dry_run in (True, False):
        with pytest.raises(BundleTampered, match=r"source/model\.gguf"):
            flash(source, tmp_path / "box", dry_run=dry_run)
    assert open_bundle(tmp_path / "box").manifest == three[1].manifest
    require_no_leftovers(tmp_path / "box")


def test_every_file_is_read_once_where_it_comes_from_and_once_on_the_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, box = make_tiny_bundle(tmp_path / "source", rows=40_000), tmp_path / "box"
    size_bytes = (source / MODEL).stat().st_size
    assert size_bytes > flashing.LINKED_BYTES
    read: Counter[Path] = Counter()

    class Counted(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            read[Path(str(self.name))] += len(data)
            return data

        def readinto(self, buffer: Any) -> int:
            count = super().readinto(buffer)
            read[Path(str(self.name))] += count
            return count

    real = Path.open

    def counted(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        return io.BufferedReader(Counted(path)) if mode == "rb" else real(path, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", counted)

    def models() -> list[int]:
        """Return the bytes read of each model since this was asked last; a header is mapped, not read."""
        found = [count for path, count in read.items() if path.name == MODEL]
        read.clear()
        return found

    flash(source, box, selftest=lambda bundle: "tested")
    assert models() == [size_bytes, size_bytes]  # while it is copied, and read back
    flash(source, box)
    assert models() == [size_bytes, size_bytes]  # there already: compared on both sides
    flash(source, box, dry_run=True)
    assert models() == [size_bytes, size_bytes]
    (source / "README.md").write_text("another card", encoding="utf-8")
    rewrite_manifest(source)
    read.clear()
    flash(source, box)
    assert models() == [size_bytes, size_bytes]  # linked: its read-back is the comparison before
    rollback(box)
    assert models() == [size_bytes]


def test_a_bundle_that_fails_its_self_test_is_not_made_current(three: list[Bundle], tmp_path: Path) -> None:
    install(three[0], tmp_path)
    tested: list[Bundle] = []

    def fails(bundle: Bundle) -> str:
        tested.append(bundle)
        assert verify_files(bundle.path) == three[1].manifest and linked(tmp_path, CURRENT) == three[0].manifest.id
        raise GateError("case 7")

    for _ in range(2):
        with pytest.raises(GateError, match="case 7"):
            install(three[1], tmp_path, selftest=fails)
        assert open_bundle(tmp_path).manifest == three[0].manifest
        require_no_leftovers(tmp_path)
    assert [one.path for one in tested] == 2 * [tmp_path / BUNDLES / three[1].manifest.id]
    assert "28 cases" in install(three[1], tmp_path, selftest=lambda bundle: "28 cases").steps
    assert open_bundle(tmp_path).manifest == three[1].manifest


def test_what_an_agent_holds_is_not_cleaned_away(three: list[Bundle], tmp_path: Path) -> None:
    """An engine that is started again reads its model once more, however many flashes there were meanwhile."""
    install(three[0], tmp_path)
    with hold_bundle(tmp_path) as held:
        install(three[1], tmp_path)
        install(three[2], tmp_path)
        assert verify_files(held.path) == three[0].manifest
        assert open_bundle(tmp_path).manifest == three[2].manifest
    install(three[2], tmp_path)
    require_no_leftovers(tmp_path)


def test_a_target_whose_parent_is_missing_is_a_usage_error(three: list[Bundle], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        flash(three[0].path, tmp_path / "not" / "mounted")


def test_a_second_flash_at_the_same_time_is_refused(three: list[Bundle], tmp_path: Path) -> None:
    install(three[0], tmp_path)

    def meanwhile(bundle: Bundle) -> str:
        for second in (lambda: install(three[2], tmp_path), lambda: rollback(tmp_path),
                       lambda: install(three[2], tmp_path, dry_run=True)):  # fmt: skip
            with pytest.raises(UnavailableError, match="another flash is under way"):
                second()
        return "tested"

    install(three[1], tmp_path, selftest=meanwhile)
    assert linked(tmp_path, CURRENT) == three[1].manifest.id
    install(three[2], tmp_path)


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


CALLS = {"fsync": (1, 2, 4, 10), "mkdir": (1,), "posix_fadvise": (1, 2, 4), "rename": (1,), "replace": (1, 2),
         "symlink": (1, 2, 3)}  # fmt: skip


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, numbers in CALLS.items() for number in numbers])
def test_an_io_error_leaves_everything_as_it_was(
    three: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    install(three[0], tmp_path)
    real, calls = getattr(os, name), 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(5, "Input/output error")
        return real(*arguments, **named)

    with monkeypatch.context() as patching:
        patching.setattr(os, name, failing)
        with pytest.raises(UnavailableError, match="Input/output error"):
            install(three[1], tmp_path)
    assert calls == number
    assert open_bundle(tmp_path).manifest == three[0].manifest
    require_no_leftovers(tmp_path)


@contextmanager
def largest_file(limit_bytes: int) -> Iterator[None]:
    """Let this process write no larger file, as FAT takes none of 4 GiB: both say EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files_on(box: Path) -> dict[str, float]:
    return {str(path): path.lstat().st_mtime_ns for path in sorted(box.rglob("*")) if not path.is_dir()}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("limit_bytes", [0, 100, 4000])
def test_a_file_too_large_for_the_disk_is_refused_before_the_copy(
    three: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, dry_run: bool
) -> None:
    install(three[0], tmp_path)
    before = files_on(tmp_path)
    monkeypatch.setattr(flashing, "_copy", lambda *_: pytest.fail("the copy began"))
    with (
        largest_file(limit_bytes),
        pytest.raises(UnavailableError, match=r"^file too large for .* has .* MB") as raised,
    ):
        install(three[1], tmp_path, dry_run=dry_run)
    assert "disk full" not in str(raised.value) and "ulimit" in raised.value.hint
    assert files_on(tmp_path) == before
    require_no_leftovers(tmp_path)


@pytest.mark.parametrize("limit_bytes", [0, 100, 1500, 4000])
def test_a_limit_that_comes_while_it_is_copied_is_one_clear_line(
    three: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int
) -> None:
    install(three[0], tmp_path)
    monkeypatch.setattr(flashing, "_require_size", lambda *_: None)
    with largest_file(limit_bytes), pytest.raises(UnavailableError, match=r"^file too large for "):
        install(three[1], tmp_path)
    assert open_bundle(tmp_path).manifest == three[0].manifest
    require_no_leftovers(tmp_path)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_disk_without_links_is_refused_before_the_copy(
    three: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    def symlink(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # as Linux's vfat and exfat do

    box = tmp_path / "stick"
    monkeypatch.setattr(os, "symlink", symlink)
    monkeypatch.setattr(flashing, "_copy", lambda *_: pytest.fail("the copy began"))
    with pytest.raises(UsageError, match="its disk has no symbolic links") as raised:
        install(three[0], box, dry_run=dry_run)
    assert "FAT" in raised.value.hint and not any(path.is_file() for path in tmp_path.rglob("*"))
    assert [*tmp_path.iterdir()] == ([] if dry_run else [box])


FULL_DISK = """
import sys
from pathlib import Path
from devices.errors import UnavailableError
from edge_agent.bundle import open_bundle
from export.flash import flash
from tests.export.flash.test_flash import require_no_leftovers
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
        flash.require_space = lambda target, size_bytes: None  # somebody filled the disk after the check
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
    with pytest.raises(EdgeError), flashing.explained(Path("/box")):
        raise OSError(28, "No space left on device")


def test_the_manifest_is_copied_last(three: list[Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    real = flashing._copy_file
    monkeypatch.setattr(flashing, "_copy_file", lambda source, *rest: (copied.append(source.name), real(source, *rest)))
    install(three[0], tmp_path)
    assert copied[-1] == MANIFEST
