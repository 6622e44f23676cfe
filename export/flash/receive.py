"""The box's side of a flash over a network: what of a bundle is there already, what must be sent, and from where on.

A bundle arrives file by file in `.staging/<id>` of the box's root, each as NAME.part until it is whole; what came
before the network broke stays, and is gone on with. A large file that a bundle on the box has already is linked and
never sent. `flash` then takes the folder like any other, and links its files in the place of copying them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devices.durable import sha256_of, sync
from devices.errors import UsageError
from edge_agent.bundle import BUNDLES, MANIFEST, FileEntry, parse_manifest
from export.flash.flash import STAGING, box_locked, explained, find_large, is_whole, require_space

PART = ".part"
MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Received:
    """What a box has of a bundle.

    Attributes:
        folder: where it arrives, absolute; with all of it, what `flash` takes.
        missing: the files that must be sent, and how many bytes of each are there already.
        missing_bytes: how many bytes that is.
    """

    folder: str
    missing: Mapping[str, int]
    missing_bytes: int


def receive(target: Path, manifest_bytes: bytes, *, dry_run: bool = False) -> Received:
    """Take in what has arrived of a bundle, and say what is missing.

    Args:
        target: the box's root; made if its parent exists.
        manifest_bytes: the bundle's manifest.
        dry_run: change nothing.

    Raises:
        UsageError: there is no such folder.
        BundleTampered: that is no manifest.
        UnavailableError: the disk is full, cannot be written, or another flash is under way.
    """
    manifest = parse_manifest(manifest_bytes, "the manifest that was sent")
    if not target.is_dir() and not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not there", hint="is the box's disk mounted?")
    folder = target.absolute() / STAGING / manifest.id
    with explained(target):
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
            with box_locked(target):
                for other in folder.parent.iterdir():
                    if other != folder:
                        shutil.rmtree(other, ignore_errors=True)
                (folder / MANIFEST).write_bytes(manifest_bytes)
        offsets = {name: _offset(folder, target, name, entry, dry_run) for name, entry in manifest.files.items()}
        missing = {name: offset for name, offset in offsets.items() if offset is not None}
        missing_bytes = sum(manifest.files[name].bytes - offset for name, offset in missing.items())
        require_space(target, missing_bytes)
    return Received(str(folder), missing, missing_bytes)


def clear(target: Path) -> None:
    """Remove what arrived: it was flashed, or is not wanted any more."""
    shutil.rmtree(target / STAGING, ignore_errors=True)


def _offset(folder: Path, target: Path, name: str, entry: FileEntry, dry_run: bool) -> int | None:
    """Return how much of a file is there, or None for all of it; a part that is whole becomes the file."""
    path, part = folder / name, folder / f"{name}{PART}"
    if is_whole(path, entry):
        return None
    bundles = target / BUNDLES
    if (known := find_large(name, entry, sorted(bundles.iterdir()) if bundles.is_dir() else ())) is not None:
        if not dry_run:
            path.unlink(missing_ok=True)
            os.link(known, path)
        return None
    if not part.is_file():
        return 0
    size = part.stat().st_size
    if size < entry.bytes:
        return size
    if size == entry.bytes and sha256_of(part) == entry.sha256:
        if not dry_run:
            sync(part)
            part.rename(path)
        return None
    if not dry_run:
        part.unlink()  # not what was sent
    return 0
