"""What a repository of releases looks like: static files that a web server or a USB stick holds.

    metadata/N.root.json, N.targets.json, N.snapshot.json, timestamp.json     signed, The Update Framework 1.0
    metadata/N.channel-CHANNEL.json      of a channel with a key of its own: what targets.json says of others
    targets/CHANNEL/HASH.manifest.json                                       a bundle's manifest, signed by its entry
    targets/blobs/HASH                                                       the bundles' files, each once

A release is an entry of targets.json, or of its channel's own file: the manifest of a bundle, with a sequence that only
rises.

Source: TUF specification 1.0.34.
"""

from __future__ import annotations

import re

from pydantic import Field
from tuf.api.metadata import DelegatedRole, TargetFile, Targets

from devices.errors import UsageError
from devices.yaml_file import Strict
from edge_agent.bundle import MANIFEST

METADATA, TARGETS, BLOBS = "metadata", "targets", "blobs"
CHANNEL = re.compile(r"[a-z][a-z0-9-]{0,39}")
ROLE = re.compile(f"channel-{CHANNEL.pattern}")  # a channel's own
DEVELOPMENT_FIELD = "x-edgewright-development"


class Release(Strict):
    """What is signed of a release beside the manifest's hash. `percent` of the boxes may take it."""

    sequence: int = Field(ge=1)
    bundle: str
    percent: int = Field(ge=0, le=100)


def target_of(channel: str) -> str:
    """Return the path of a channel's release. Raises UsageError if no channel has such a name."""
    if not CHANNEL.fullmatch(channel) or channel == BLOBS:
        raise UsageError(f"{channel!r} is no channel", hint="small letters, digits and hyphens, such as stable")
    return f"{channel}/{MANIFEST}"


def role_of(channel: str) -> str:
    """Return the name of a channel's own role and key, if it has them. Raises UsageError as `target_of`."""
    target_of(channel)
    return f"channel-{channel}"


def delegated_roles(targets: Targets) -> dict[str, DelegatedRole]:
    """Return the channels' own roles, by their names, as targets.json gives them; others are not ours."""
    roles = (targets.delegations.roles or {}) if targets.delegations else {}
    return {name: role for name, role in roles.items() if ROLE.fullmatch(name)}


def release_of(target: TargetFile) -> Release:
    """Return what is signed of a release. Raises UsageError if that is something else."""
    try:
        return Release.model_validate(target.custom)
    except ValueError as error:
        raise UsageError(
            f"{target.path}: no release: {error}", hint="publish it by `edgewright repo publish`"
        ) from error
