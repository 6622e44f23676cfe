"""A box takes a channel's release: verify, fetch what it lacks, try it, and only then make it current."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from devices.errors import EdgeError, UnavailableError
from edge_agent.bundle import CURRENT, FileEntry, open_bundle, parse_manifest
from edge_agent.progress import ByteProgressBar, Progress, no_progress_bar
from export.flash.flash import FlashReport, SelfTest, explained, flash
from export.flash.receive import PART, clear, receive
from export.release.answers import note_answer
from export.release.layout import BLOBS, TARGETS
from export.release.sources import Source
from export.release.trust import fetch_release, is_in_wave

SYNC_BYTES = 16 << 20  # of a file, between two fsyncs: what a power cut may cost
ROUNDS = 2  # of fetching: what an earlier pull has left of a file may be damaged, and then all of it is fetched again


@dataclass(frozen=True)
class PullReport:
    """What a pull led to.

    Attributes:
        release: its number.
        bundle: its id.
        state: `current` already, `waiting` for its wave, `installed`, or with a dry run `to install`.
        fetched_bytes: what was, or would be, fetched.
        steps: what was done, in words.
    """

    release: int
    bundle: str
    state: str
    fetched_bytes: int = 0
    steps: tuple[str, ...] = ()


def pull(
    box: Path,
    source: Source,
    channel: str = "stable",
    *,
    dry_run: bool = False,
    progress_bar: ByteProgressBar = no_progress_bar,
    selftest: SelfTest | None = None,
) -> PullReport:
    """Bring a box to its channel's release.

    Args:
        box: its root.
        source: where the repository is read.
        channel: which release.
        dry_run: verify, and say what would be fetched; only what was seen is noted.
        progress_bar: opens a progress bar for what is fetched.
        selftest: runs the bundle on the box before it is made current, and raises if it must not be.

    Raises:
        What fetch_release and flash raise; what was current still is. What was fetched stays, and is gone on with.
        Whether the box has taken the release is written down (answers.py).
    """
    trusted = fetch_release(box, source, channel)
    release = trusted.release
    if _current(box) == release.bundle:
        note_answer(box, trusted)
        return PullReport(release.sequence, release.bundle, "current")
    if not is_in_wave(box, trusted):
        return PullReport(release.sequence, release.bundle, "waiting")
    missing = receive(box, trusted.manifest, dry_run=dry_run)
    if dry_run:
        return PullReport(release.sequence, release.bundle, "to install", missing.missing_bytes)
    entries = parse_manifest(trusted.manifest, f"the release of {channel}").files
    fetched_bytes = 0
    for _ in range(ROUNDS):
        if missing.missing:
            with explained(box), progress_bar("fetching", missing.missing_bytes) as progress:
                for name, offset in missing.missing.items():
                    _fetch(source, entries[name], Path(missing.folder) / f"{name}{PART}", offset, progress)
            fetched_bytes += missing.missing_bytes
            missing = receive(box, trusted.manifest)
    if damaged := missing.missing:
        hint = "the repository is damaged, or somebody changes what comes over the network; what the box has stays"
        raise UnavailableError(f"{source.url}: not as it was signed: {', '.join(damaged)}", hint=hint)
    try:
        report: FlashReport = flash(Path(missing.folder), box, selftest=selftest)
    except EdgeError as error:
        note_answer(box, trusted, str(error))
        raise
    note_answer(box, trusted)
    clear(box)
    return PullReport(release.sequence, release.bundle, "installed", fetched_bytes, report.steps)


def _fetch(source: Source, entry: FileEntry, part: Path, offset: int, progress: Progress) -> None:
    """Append a file's bytes from an offset on to its part, never more than it has."""
    left, synced = entry.bytes - offset, offset
    with part.open("ab") as file:
        for chunk in source.read(f"{TARGETS}/{BLOBS}/{entry.sha256}", offset):
            file.write(chunk[:left])
            left -= len(chunk)
            progress(len(chunk))
            if file.tell() - synced >= SYNC_BYTES or left <= 0:
                file.flush()
                os.fsync(file.fileno())
                synced = file.tell()
            if left <= 0:
                break
    if left > 0:
        hint = "what came is kept; the same command goes on from there"
        raise UnavailableError(f"{source.url}: {entry.sha256[:12]} ends {left} bytes too early", hint=hint)


def _current(box: Path) -> str:
    """Return the id of a box's current bundle, if it has a whole one."""
    if not (box / CURRENT).exists():
        return ""
    try:
        return open_bundle(box).manifest.id
    except EdgeError:  # whatever is wrong with it, it is not what was released
        return ""
