"""Put a bundle on a box, so that whatever happens meanwhile, the box comes up with a working model.

A box's root holds `bundles/<id>/`, named after their manifests, and the links `current` and `previous` into it. A
bundle is copied aside, synced, read back and compared, renamed, and only then does `current` change, in one step. A
file that a bundle on the box has already, such as the base model under a new adapter, is not copied again but linked.

Does not guard against: a disk that says fsync is done when it is not; someone else writing into the box's root.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from devices.durable import sha256_of, sync
from devices.errors import RefusedError, UnavailableError, UsageError
from edge_agent.bundle import BUNDLES, CURRENT, MANIFEST, PREVIOUS, Bundle, BundleTampered, open_bundle, verify_files

INCOMING = ".incoming-"
MARGIN_BYTES = 1 << 20  # for folders and links
CHUNK_BYTES = 1 << 20
LINKED_BYTES = 1 << 20  # smaller files are copied all the same
SYNC_BYTES = 64 << 20  # between two fsyncs of a file: progress is what is on the disk, not what is in memory
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class FlashReport:
    """What was done, or with a dry run would be. `previous` is the id that a rollback goes back to, or ""."""

    id: str
    previous: str
    copied_bytes: int
    steps: tuple[str, ...]


def _ignore(size_bytes: int) -> None:
    pass


def flash(
    bundle: Path, target: Path, *, dry_run: bool = False, progress: Callable[[int], None] = _ignore
) -> FlashReport:
    """Verify a bundle, copy it to a box's root and make it current.

    Args:
        bundle: a bundle's folder, or another box's root.
        target: the box's root, on a disk that has symbolic links; made if its parent exists.
        dry_run: verify and check the space, and change nothing.
        progress: is told how many more bytes are copied.

    Raises:
        BundleTampered, BadGguf, ContractChanged: the source, or the copy read back, is not what was exported.
        UnavailableError: disk full, an I/O error, or another flash is under way; `current` is as it was.
        UsageError: no such bundle or target.
    """
    return install(open_bundle(bundle), target, dry_run=dry_run, progress=progress)


def install(
    bundle: Bundle, target: Path, *, dry_run: bool = False, progress: Callable[[int], None] = _ignore
) -> FlashReport:
    """Do what `flash` does, with a bundle that is already open."""
    with _explained(target):
        if not target.is_dir() and not target.parent.is_dir():
            raise UsageError(f"{target.parent} is not there", hint="is the box's disk mounted?")
        final = target / BUNDLES / bundle.manifest.id
        old = _linked(target, CURRENT)
        previous = _linked(target, PREVIOUS) if old in ("", final.name) else old
        known = {} if (is_whole := _is_whole(final)) else _known_files(bundle, target, {old, previous} - {""})
        size_bytes = 0 if is_whole else _needed_bytes(bundle, known)
        _require_space(target, size_bytes)
        linked = f", {', '.join(known)} is there already" if known else ""
        steps = [
            f"copy {size_bytes / 1e6:.1f} MB to {final}{linked}"
            if size_bytes
            else f"{final} is already there and whole",
            "read back and compare every file",
            f"switch {target / CURRENT} from {old or 'nothing'} to {final.name}",
            f"keep {previous or 'nothing'} as {PREVIOUS}",
        ]
        report = FlashReport(final.name, previous, size_bytes, tuple(steps))
        if dry_run:
            return report
        with _locked(target):
            _clean(target, keep=final.name)
            try:
                if size_bytes:
                    _copy(bundle, final, known, progress)
                if previous == old and old:
                    _switch(target, PREVIOUS, old)
                _switch(target, CURRENT, final.name)
            finally:
                _clean(target)
    return report


def rollback(target: Path, *, dry_run: bool = False) -> FlashReport:
    """Make the previous bundle current again, and the current one previous.

    Raises:
        RefusedError: there is no previous bundle, or it is not whole any more; nothing changes.
        UnavailableError: an I/O error, or a flash is under way.
    """
    with _explained(target):
        old, new = _linked(target, CURRENT), _linked(target, PREVIOUS)
        if not new or new == old:
            raise RefusedError(f"{target}: there is no previous bundle to go back to", hint="flash the one you want")
        open_bundle(target / BUNDLES / new)
        steps = ("verify the previous bundle", f"switch {target / CURRENT} from {old or 'nothing'} to {new}")
        if not dry_run:
            with _locked(target):
                _switch(target, CURRENT, new)
                if old:
                    _switch(target, PREVIOUS, old)
    return FlashReport(new, old, 0, steps)


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


def _is_whole(folder: Path) -> bool:
    """Return whether a bundle on the box is as its name says."""
    if not folder.is_dir():
        return False
    try:
        return verify_files(folder).id == folder.name
    except (BundleTampered, UnavailableError):
        return False


def _known_files(bundle: Bundle, target: Path, ids: set[str]) -> dict[str, Path]:
    """Return which large files of a bundle some of those on the box have too, whole, and where."""
    known = {}
    for name, entry in bundle.manifest.files.items():
        for folder in (target / BUNDLES / one for one in sorted(ids)):
            path = folder / name
            if entry.bytes < LINKED_BYTES or not path.is_file() or path.stat().st_size != entry.bytes:
                continue
            if sha256_of(path) == entry.sha256:
                known[name] = path
                break
    return known


def _needed_bytes(bundle: Bundle, known: Iterable[str]) -> int:
    sizes = [entry.bytes for name, entry in bundle.manifest.files.items() if name not in set(known)]
    return sum(sizes) + len(bundle.manifest.to_bytes())


def _require_space(target: Path, size_bytes: int) -> None:
    if not size_bytes:
        return
    disk = os.statvfs(target if target.is_dir() else target.parent)
    free = disk.f_bavail * disk.f_frsize
    needed = size_bytes + MARGIN_BYTES
    if free < needed:
        raise UnavailableError(
            f"disk full: the bundle needs {needed / 1e6:.1f} MB on {target}, {free / 1e6:.1f} MB are free",
            hint="nothing was changed; free some space, or flash a smaller quantization",
        )


def _copy(bundle: Bundle, final: Path, known: Mapping[str, Path], progress: Callable[[int], None]) -> None:
    """Copy a bundle aside, durably, compare the copy with the manifest, and give it its name."""
    aside = final.with_name(INCOMING + final.name)
    aside.mkdir()
    for name in [*bundle.manifest.files, MANIFEST]:  # the manifest last
        if name in known:
            os.link(known[name], aside / name)
        else:
            _copy_file(bundle.path / name, aside / name, progress)
    sync(aside)
    if verify_files(aside) != bundle.manifest:
        raise BundleTampered(f"{bundle.path / MANIFEST}: changed while it was copied")
    if final.is_dir():  # a damaged copy of the same bundle
        final.rename(final.with_name(f"{INCOMING}damaged-{final.name}"))
    aside.rename(final)
    sync(final.parent)


def _copy_file(source: Path, copy: Path, progress: Callable[[int], None]) -> None:
    with source.open("rb") as reader, copy.open("xb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            writer.write(chunk)
            progress(len(chunk))
            if writer.tell() % SYNC_BYTES < len(chunk):
                _sync(writer)
        _sync(writer)
        os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that the read-back asks the disk


def _sync(writer: BinaryIO) -> None:
    writer.flush()
    os.fsync(writer.fileno())


def _switch(target: Path, link: str, bundle_id: str) -> None:
    """Point a link at a bundle in one step: before, it leads to the old one, after, to the new one."""
    aside = target / f".{link}-aside"
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(Path(BUNDLES) / bundle_id)
    except PermissionError as error:
        raise UsageError(
            f"{target}: cannot make a symbolic link: {error}", hint="use a disk with ext4 or the like"
        ) from error
    aside.replace(target / link)
    sync(target)


def _clean(target: Path, keep: str = "") -> None:
    """Remove what earlier flashes left, and bundles that are neither current nor previous."""
    kept = {_aim(target, CURRENT), _aim(target, PREVIOUS), keep}
    for folder in (target / BUNDLES).iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    for link in (CURRENT, PREVIOUS):
        (target / f".{link}-aside").unlink(missing_ok=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let one flash at a time write to a box's root; the lock ends with the process."""
    for folder in (target, target / BUNDLES):
        if not folder.is_dir():
            folder.mkdir()
            sync(folder.parent)
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UnavailableError(f"{target}: another flash is under way", hint="wait until it ends") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """Translate what a disk can do to us into one line."""
    try:
        yield
    except OSError as error:
        hint = "what was current still is; try again"
        if error.errno in _FULL:
            raise UnavailableError(f"disk full while writing to {target}: {error.strerror}", hint=hint) from error
        raise UnavailableError(f"cannot write to {target}: {error}", hint=hint) from error
