"""Files that survive a power cut: written aside, fsynced, renamed, and the folder fsynced too.

Does not guard against: a disk that says fsync is done when it is not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def aside_of(path: Path) -> Path:
    """Return where a file is written until it is whole: the same folder, so that a rename is atomic."""
    return path.with_name(path.name + ".part")


def sync(path: Path) -> None:
    """Return once a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finish(aside: Path, path: Path) -> None:
    """Give a whole file its name, durably; what was there before is replaced at once."""
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    aside = aside_of(path)
    aside.write_bytes(data)
    finish(aside, path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
