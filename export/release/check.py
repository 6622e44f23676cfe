"""Proves a repository as a new box would, before boxes do."""

from __future__ import annotations

import tempfile
from pathlib import Path

from devices.errors import GateError
from edge_agent.bundle import parse_manifest
from export.flash.flash import is_whole
from export.release.layout import BLOBS, METADATA, TARGETS
from export.release.repository import Published, releases
from export.release.sources import FolderSource
from export.release.trust import Trusted, fetch_release, trust


def check(folder: Path) -> list[Published]:
    """Prove a repository as a new box would, and compare each file of each release; return the releases.

    Raises:
        NotTrusted, UnavailableError, UsageError: what a box would say.
        GateError: a file is missing or damaged.
    """
    found, source = releases(folder), FolderSource(folder)
    with tempfile.TemporaryDirectory() as scratch:
        box = Path(scratch) / "box"
        trust(box, folder / METADATA / "1.root.json")
        for one in found:
            trusted: Trusted = fetch_release(box, source, one.channel)
            for name, entry in parse_manifest(trusted.manifest, one.channel).files.items():
                blob = folder / TARGETS / BLOBS / entry.sha256
                if not is_whole(blob, entry):
                    hint = "publish the bundle again"
                    raise GateError(f"{blob} ({name} of {one.channel}) is missing or damaged", hint=hint)
    return found
