"""Put a bundle on a box, so that whatever happens meanwhile, the box comes up with a working model.

A box's root holds `bundles/<id>/`, named after their manifests, and the links `current` and `previous` into it. A
bundle is copied aside, synced, read back and compared, renamed, tested, and only then does `current` change, in one
step. A file that a bundle on the box has already, such as the base model under a new adapter, is not copied again but
linked. Every file is read once where it comes from, while it is copied, and once on the box.

Two locks (flock) keep this true for several at once. One flash at a time holds the box's root, from before it looks at
what is there until it is done. Whoever opens a bundle holds that bundle's folder (edge_agent/bundle.py), and what is
held is not cleaned away: the next flash does it.

Does not guard against: a disk that says fsync is done when it is not; someone else writing into the box's root.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from devices.durable import sha256_of, sync
from devices.errors import EdgeError, RefusedError, UnavailableError, UsageError
from edge_agent.bundle import (
    BUNDLES,
    CURRENT,
    MANIFEST,
    PREVIOUS,
    Bundle,
    BundleTampered,
    FileEntry,
    hold_bundle,
    open_bundle,
    read_bundle,
    require_content,
    verify_files,
)
from edge_agent.progress import ByteProgressBar, Progress, no_progress_bar

INCOMING = ".incoming-"
STAGING = ".staging"  # where a bundle arrives over a network (receive.py): its files are linked, not copied again
MARGIN_BYTES = 1 << 20  # for folders and links
CHUNK_BYTES = 1 << 20
LINKED_BYTES = 1 << 20  # smaller files are copied all the same
SYNC_BYTES = 64 << 20  # between two fsyncs of a file: progress is what is on the disk, not what is in memory
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}  # what a disk without symbolic links says
SelfTest = Callable[[Bundle], str]  # of a bundle that is on the box and not yet current; says in a line what came of it


@dataclass(frozen=True)
class FlashReport:
    """What was done, or with a dry run would be. `previous` is the id that a rollback goes back to, or ""."""

    id: str
    previous: str
    copied_bytes: int
    steps: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """What a flash will do.

    Attributes:
        final: the bundle's folder on the box.
        present: the bundle, if it is there already and whole.
        known: files that another bundle on the box has too, whole, and where.
        size_bytes: to be copied.
        old: id of the current bundle, or "".
        previous: id of the bundle to go back to afterwards, or "".
    """

    final: Path
    present: Bundle | None
    known: Mapping[str, Path]
    size_bytes: int
    old: str
    previous: str

    def report(self, target: Path, tested: str) -> FlashReport:
        """Return it in words; `tested` is about the self-test, or ""."""
        linked = f", {', '.join(self.known)} is there already" if self.known else ""
        steps = [
            f"{self.final} is already there and whole"
            if self.present
            else f"copy {self.size_bytes / 1e6:.1f} MB to {self.final}{linked}",
            "read back and compare every file",
            *([tested] if tested else []),
            f"switch {target / CURRENT} from {self.old or 'nothing'} to {self.final.name}",
            f"keep {self.previous or 'nothing'} as {PREVIOUS}",
        ]
        return FlashReport(self.final.name, self.previous, self.size_bytes, tuple(steps))


def flash(
    bundle: Path,
    target: Path,
    *,
    dry_run: bool = False,
    progress_bar: ByteProgressBar = no_progress_bar,
    selftest: SelfTest | None = None,
) -> FlashReport:
    """Verify a bundle, copy it to a box's root and make it current.

    Args:
        bundle: a bundle's folder, or another box's root.
        target: the box's root, on a disk that has symbolic links; made if its parent exists.
        dry_run: verify, check the disk and its space, and change nothing.
        progress_bar: opens a progress bar for what is copied.
        selftest: runs the bundle on the box before it is made current, and raises if it must not be.

    Raises:
        BundleTampered, BadGguf, ContractChanged: the source, or the copy read back, is not what was exported.
        UnavailableError: disk full, a file too large for it, an I/O error, or another flash is under way; `current` is
            as it was.
        UsageError: no such bundle or target, or a disk without symbolic links.
        Exception: what `selftest` raised; `current` is as it was.
    """
    with hold_bundle(bundle, is_read=False) as held:
        return install(held, target, dry_run=dry_run, progress_bar=progress_bar, selftest=selftest)


def install(
    bundle: Bundle,
    target: Path,
    *,
    dry_run: bool = False,
    progress_bar: ByteProgressBar = no_progress_bar,
    selftest: SelfTest | None = None,
) -> FlashReport:
    """Do what `flash` does, with a bundle that is open; its files' contents are compared here."""
    with explained(target):
        if not target.is_dir() and not target.parent.is_dir():
            raise UsageError(f"{target.parent} is not there", hint="is the box's disk mounted?")
        if dry_run:
            with _locked(target, fcntl.LOCK_SH) if target.is_dir() else nullcontext():
                plan = _plan(bundle, target)
                verify_files(bundle.path)
            return plan.report(target, "run the self-test" if selftest else "")
        _make_folder(target)
        with _locked(target, fcntl.LOCK_EX):
            _make_folder(target / BUNDLES)
            _clean(target, keep=bundle.manifest.id)
            plan = _plan(bundle, target)
            try:
                on_box = _put(bundle, plan, progress_bar)
                tested = selftest(on_box) if selftest else ""
                if plan.previous == plan.old and plan.old:
                    _switch(target, PREVIOUS, plan.old)
                _switch(target, CURRENT, plan.final.name)
            finally:
                _clean(target)
    return plan.report(target, tested)


def rollback(target: Path, *, dry_run: bool = False) -> FlashReport:
    """Make the previous bundle current again, and the current one previous.

    Raises:
        RefusedError: there is no previous bundle, or it is not whole any more; nothing changes.
        UnavailableError: an I/O error, or a flash is under way.
    """
    with explained(target):
        if not target.is_dir():
            raise _no_previous(target)
        with _locked(target, fcntl.LOCK_SH if dry_run else fcntl.LOCK_EX):
            old, new = _linked(target, CURRENT), _linked(target, PREVIOUS)
            if not new or new == old:
                raise _no_previous(target)
            open_bundle(target / BUNDLES / new)
            if not dry_run:
                _switch(target, CURRENT, new)
                if old:
                    _switch(target, PREVIOUS, old)
    steps = ("verify the previous bundle", f"switch {target / CURRENT} from {old or 'nothing'} to {new}")
    return FlashReport(new, old, 0, steps)


def _no_previous(target: Path) -> RefusedError:
    return RefusedError(f"{target}: there is no previous bundle to go back to", hint="flash the one you want")


def _plan(bundle: Bundle, target: Path) -> _Plan:
    """Return what is to be done, from what is on the box; the caller holds the box's lock."""
    final = target / BUNDLES / bundle.manifest.id
    old = _linked(target, CURRENT)
    previous = _linked(target, PREVIOUS) if old in ("", final.name) else old
    present = _whole(final)
    known = {} if present else _known_files(bundle, target, {old, previous} - {""})
    size_bytes = 0 if present else _needed_bytes(bundle, known)
    _require_links(target)
    if not present:
        _require_size(bundle, target, known)
        require_space(target, size_bytes)
    return _Plan(final, present, known, size_bytes, old, previous)


def _aim(target: Path, link: str) -> str:
    """Return the name of the folder that a link leads to, there or not, or "" if there is no such link."""
    try:
        return (target / link).readlink().name
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        if error.errno == errno.EINVAL:
            hint = f"a box's root has links {CURRENT} and {PREVIOUS}"
            raise UsageError(f"{target / link} is not a link", hint=hint) from error
        raise


def _linked(target: Path, link: str) -> str:
    """Return the id of the bundle that a link leads to, or "" if there is none."""
    name = _aim(target, link)
    return name if name and (target / BUNDLES / name / MANIFEST).is_file() else ""


def _whole(folder: Path) -> Bundle | None:
    """Return a bundle on the box if it is as its name says, else None."""
    if not folder.is_dir():
        return None
    try:
        bundle = read_bundle(folder)
    except EdgeError:
        return None
    return bundle if bundle.manifest.id == folder.name else None


def _known_files(bundle: Bundle, target: Path, ids: set[str]) -> dict[str, Path]:
    """Return which large files of a bundle some of those on the box have too, whole, and where."""
    staged = [bundle.path] if bundle.path.parent == (target / STAGING).resolve() else []
    folders = [*staged, *(target / BUNDLES / one for one in sorted(ids))]
    found = {name: find_large(name, entry, folders) for name, entry in bundle.manifest.files.items()}
    return {name: path for name, path in found.items() if path}


def find_large(name: str, entry: FileEntry, folders: Iterable[Path]) -> Path | None:
    """Return where a file that is large enough to be linked stands whole, the first of some bundles' folders."""
    if entry.bytes < LINKED_BYTES:
        return None
    return next((path for path in (folder / name for folder in folders) if is_whole(path, entry)), None)


def is_whole(path: Path, entry: FileEntry) -> bool:
    """Return whether a file is there with the size and the content that a manifest says."""
    return path.is_file() and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256


def _needed_bytes(bundle: Bundle, known: Iterable[str]) -> int:
    sizes = [entry.bytes for name, entry in bundle.manifest.files.items() if name not in set(known)]
    return sum(sizes) + len(bundle.manifest.to_bytes())


def _probe_folder(target: Path) -> Path:
    """Return where on a box's disk something may be tried: where leftovers of a killed flash are cleaned away."""
    return next(folder for folder in (target / BUNDLES, target, target.parent) if folder.is_dir())


def _require_links(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=INCOMING, dir=_probe_folder(target)) as folder:
        try:
            (Path(folder) / CURRENT).symlink_to(BUNDLES)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            hint = "a box's root needs ext4 or the like; FAT and exFAT have no symbolic links"
            raise UsageError(f"{target}: its disk has no symbolic links: {error.strerror}", hint=hint) from error


def _require_size(bundle: Bundle, target: Path, known: Iterable[str]) -> None:
    """Raise UnavailableError if a file is larger than the disk, or a limit of this process, takes."""
    sizes = {name: entry.bytes for name, entry in bundle.manifest.files.items() if name not in set(known)}
    name = max(sizes, key=lambda one: sizes[one])
    with tempfile.TemporaryFile(dir=_probe_folder(target)) as file:
        try:
            file.truncate(sizes[name])  # nothing is written: the file is one hole
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            raise _too_large(target, f"{name} has {sizes[name] / 1e6:.1f} MB") from error


def _too_large(target: Path, what: str) -> UnavailableError:
    hint = "what was current still is; `ulimit -f` or the file system of this disk limits the size of a file"
    return UnavailableError(f"file too large for {target}: {what}", hint=hint)


def require_space(target: Path, size_bytes: int) -> None:
    """Raise UnavailableError unless a box's disk has room for so many bytes."""
    disk = os.statvfs(target if target.is_dir() else target.parent)
    free = disk.f_bavail * disk.f_frsize
    needed = size_bytes + MARGIN_BYTES
    if free < needed:
        raise UnavailableError(
            f"disk full: the bundle needs {needed / 1e6:.1f} MB on {target}, {free / 1e6:.1f} MB are free",
            hint="nothing was changed; free some space, or flash a smaller quantization",
        )


def _put(bundle: Bundle, plan: _Plan, progress_bar: ByteProgressBar) -> Bundle:
    """Return the bundle on the box, durable and whole, after comparing every file of the source with its manifest."""
    if plan.present:
        verify_files(bundle.path)
        return plan.present
    final = plan.final
    aside = final.with_name(INCOMING + final.name)
    aside.mkdir()
    with progress_bar("copying", plan.size_bytes) as progress:
        _copy(bundle, aside, plan.known, progress)
    sync(aside)
    copy = read_bundle(aside, trusted=plan.known)  # those were compared where they are
    if copy.manifest != bundle.manifest:
        raise BundleTampered(f"{bundle.path / MANIFEST}: changed while it was copied")
    if final.is_dir():  # a damaged copy of the same bundle
        final.rename(final.with_name(f"{INCOMING}damaged-{final.name}"))
    aside.rename(final)
    sync(final.parent)
    return replace(copy, path=final)


def _copy(bundle: Bundle, aside: Path, known: Mapping[str, Path], progress: Progress) -> None:
    """Fill a folder with a bundle's files, copied or linked, durably; each is compared with the manifest."""
    for name, entry in bundle.manifest.files.items():
        if name in known:
            require_content(bundle.path / name, sha256_of(bundle.path / name), entry)
            os.link(known[name], aside / name)
        else:
            _copy_file(bundle.path / name, aside / name, entry, progress)
    manifest = bundle.manifest.to_bytes()
    entry = FileEntry(sha256=hashlib.sha256(manifest).hexdigest(), bytes=len(manifest))
    _copy_file(bundle.path / MANIFEST, aside / MANIFEST, entry, progress)  # the last


def _copy_file(source: Path, copy: Path, entry: FileEntry, progress: Progress) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as reader, copy.open("xb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            writer.write(chunk)
            digest.update(chunk)
            progress(len(chunk))
            if writer.tell() % SYNC_BYTES < len(chunk):
                _sync(writer)
        _sync(writer)
        os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that the read-back asks the disk
    require_content(source, digest.hexdigest(), entry)


def _sync(writer: BinaryIO) -> None:
    writer.flush()
    os.fsync(writer.fileno())


def _switch(target: Path, link: str, bundle_id: str) -> None:
    """Point a link at a bundle in one step: before, it leads to the old one, after, to the new one."""
    aside = target / f".{link}-aside"
    aside.unlink(missing_ok=True)
    aside.symlink_to(Path(BUNDLES) / bundle_id)
    aside.replace(target / link)
    sync(target)


def _clean(target: Path, keep: str = "") -> None:
    """Remove what earlier flashes left, and bundles that are neither current nor previous."""
    kept = {_aim(target, CURRENT), _aim(target, PREVIOUS), keep}
    for folder in (target / BUNDLES).iterdir():
        if folder.name not in kept:
            _remove(folder)
    for link in (CURRENT, PREVIOUS):
        (target / f".{link}-aside").unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Remove a folder, unless somebody holds it or the disk will not: a later flash tries again."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


@contextmanager
def _locked(target: Path, how: int) -> Iterator[None]:
    """Hold a box's root, LOCK_EX to write and LOCK_SH to read; the lock ends with the process."""
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnavailableError(f"{target}: another flash is under way", hint="wait until it ends") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def box_locked(target: Path) -> Iterator[None]:
    """Hold a box's root to write. Raises UnavailableError if a flash is under way."""
    with _locked(target, fcntl.LOCK_EX):
        yield


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Translate what a disk can do to us into one line."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _too_large(target, str(error.strerror)) from error
        hint = "what was current still is; try again"
        if error.errno in _FULL:
            raise UnavailableError(f"disk full while writing to {target}: {error.strerror}", hint=hint) from error
        raise UnavailableError(f"cannot write to {target}: {error}", hint=hint) from error
