"""Checks of the box's disk: room for the next update, what its file system can do, and the journal.

Each is tried, in a folder of its own that is removed at once; a bundle's folder is never written to.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from devices.broker.journal import JOURNAL_IN_BOX, read_events, verify_events
from devices.durable import sync
from edge_agent.box.finding import Finding, failure, ok, size_text, warning
from edge_agent.box.machine import Machine, user_name

MARGIN_BYTES = 64_000_000  # beside the next bundle, for the journal to grow
JOURNAL_BYTES = 16_000_000  # with less the journal soon cannot be written, and nothing moves without it
PREFIX = ".doctor-"


def check_disk(machine: Machine, root: Path, bundle_folder: Path | None) -> list[Finding]:
    """Find too little room for a second bundle as large as the one that is current."""
    free = machine.free_bytes(root)
    size = sum(file.lstat().st_size for file in bundle_folder.iterdir()) if bundle_folder else 0
    needed = size + MARGIN_BYTES
    text = f"{size_text(free)} free on the disk of {root}; the next update needs {size_text(needed)} "
    text += f"(a bundle of {size_text(size)}, and room)"
    fix = "free some space on this disk"
    if free < JOURNAL_BYTES:
        return [failure("disk", f"{text}; the journal needs {size_text(JOURNAL_BYTES)} to go on", fix)]
    if free < needed:
        return [warning("disk", text, f"{fix}, before the next `edgewright flash`")]
    return [ok("disk", text)]


def check_file_system(machine: Machine, root: Path) -> list[Finding]:
    """Find a disk on which no update can be flashed: read-only, without symbolic links, or without fsync."""
    name = "file system"
    if machine.is_read_only(root):
        fix = f"before an update: sudo mount -o remount,rw {_mount_of(root)}"
        return [warning(name, f"{root} is mounted read-only, so that no update can be flashed", fix)]
    if not machine.may(root, os.W_OK):
        fix = f"flash as its owner, or: sudo chown -R {user_name()} {root}"
        return [warning(name, f"{user_name()} may not write to {root}, so that no update can be flashed", fix)]
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=root, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        try:
            (folder / "link").symlink_to("file")
        except OSError as error:
            text = f"the disk of {root} has no symbolic links ({error.strerror}), so that no update can be flashed"
            return [warning(name, text, "give the box a disk with ext4 or the like; FAT and exFAT have none")]
        try:
            (folder / "file").write_bytes(b"1")
            sync(folder / "file")
            (folder / "file").rename(folder / "renamed")
            sync(folder)
        except OSError as error:
            return [failure(name, f"the disk of {root} does not sync: {error}", "check the disk: sudo dmesg | tail")]
    return [ok(name, f"{root} can be written, has symbolic links, and syncs")]


def check_state(machine: Machine, root: Path) -> list[Finding]:
    """Find a box in which the agent cannot make the folder for its journal and the engine's cache, wherever those are.

    Nothing is found if all is well: check_journal tells of the rest.
    """
    folder = root / JOURNAL_IN_BOX.parent
    if folder.is_dir() or (machine.may(root, os.W_OK | os.X_OK) and not machine.is_read_only(root)):
        return []
    text = f"{folder} is not there, and {user_name()} cannot make it"
    return [failure("state", text, f"sudo mkdir {folder} && sudo chown {user_name()} {folder}")]


def check_journal(machine: Machine, file: Path, *, is_in_box: bool) -> list[Finding]:
    """Find a journal that cannot be written, read or believed: without one nothing moves.

    Args:
        machine: says what this user may do.
        file: the journal, there or not yet.
        is_in_box: whether its folder is the box's own, which the agent makes.
    """
    name = "journal"
    folder = file.parent.parent if is_in_box and not file.parent.exists() else file.parent
    if not folder.is_dir():
        return [failure(name, f"the folder {folder} is not there", f"mkdir -p {folder}, or give --journal FILE")]
    fix = f"sudo chown -R {user_name()} {folder}, or give --journal FILE in a folder of your own"
    if machine.is_read_only(folder):
        text = f"{folder} is mounted read-only, and nothing moves without a journal"
        return [failure(name, text, "give --journal FILE on a disk that can be written")]
    if not machine.may(folder, os.W_OK | os.X_OK):
        return [failure(name, f"{user_name()} may not write to {folder}", fix)]
    if file.exists() and not machine.may(file, os.R_OK | os.W_OK):
        return [failure(name, f"{user_name()} may not read and write {file}", fix)]
    with tempfile.NamedTemporaryFile(prefix=PREFIX, dir=folder) as tried:
        tried.write(b"1")
        tried.flush()
        os.fsync(tried.fileno())
    if not file.exists():
        return [ok(name, f"{file} is not there yet; its folder can be written")]
    count, digest = verify_events(read_events(file))
    return [ok(name, f"{file}: {count} events, each as it was written, the last {digest[:12]}")]


def _mount_of(path: Path) -> Path:
    """Return where the file system of a path is mounted."""
    return next(one for one in (path.resolve(), *path.resolve().parents) if one.is_mount())
