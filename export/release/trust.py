"""What a box trusts: a root of keys, and nothing that is older than what it has seen.

`trust/` in the box's root holds the root that a person gave it, the newest metadata that was verified (the Update
Framework's cache), and `floor.json`: the versions seen so far, durably. The cache alone would not do: emptied, it lets
an older repository in (python-tuf 7.0.1).

Does not guard against: whoever may write into the box's root.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater

from devices.durable import sync, write_file
from devices.errors import RefusedError, UnavailableError, UsageError
from devices.yaml_file import Strict
from export.flash.flash import explained
from export.release.layout import (
    CHANNEL,
    DEVELOPMENT_FIELD,
    METADATA,
    ROLE,
    TARGETS,
    Release,
    delegated_roles,
    release_of,
    role_of,
    target_of,
)
from export.release.sources import Fetcher, Source

TRUST, ROOT, FLOOR, BOX_ID = "trust", "root.json", "floor.json", "id"
ROLES = ("root", "timestamp", "snapshot", "targets")
_Channel = Annotated[str, Field(pattern=f"^{CHANNEL.pattern}$")]
_Role = Annotated[str, Field(pattern=f"^({'|'.join(ROLES)}|{ROLE.pattern})$")]


class NotTrusted(RefusedError):
    """A repository that is not signed by whom the box trusts, is older than what it has seen, or has expired."""


class Floor(Strict):
    """What was seen: the highest version of each role with the keys that signed it, each channel's highest sequence."""

    versions: dict[_Role, int] = Field(default_factory=dict)
    keys: dict[_Role, list[str]] = Field(default_factory=dict)
    sequences: dict[_Channel, int] = Field(default_factory=dict)


@dataclass(frozen=True)
class Trusted:
    """A channel's release, verified, with the bytes of its bundle's manifest."""

    channel: str
    release: Release
    manifest: bytes


def trust(box: Path, root: Path) -> bool:
    """Have a box trust a repository's root; return whether that is one for development.

    Raises:
        UsageError: no such box or root.
        RefusedError: the box trusts another one.
        UnavailableError: the box's disk cannot be written.
    """
    if not box.is_dir() and not box.parent.is_dir():
        raise UsageError(f"{box.parent} is not there", hint="is the box's disk mounted?")
    try:
        data = root.read_bytes()
        metadata = Metadata[Root].from_bytes(data)
        metadata.verify_delegate(Root.type, metadata)
    except (OSError, DeserializationError, RepositoryError, ValueError) as error:
        raise UsageError(f"{root} is no root: {error}", hint="give metadata/1.root.json of the repository") from error
    folder = box / TRUST
    path = folder / ROOT
    with explained(box):
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() != data:
            hint = f"to trust another one, remove {folder} by hand: what the box has seen is forgotten with it"
            raise RefusedError(f"{box} trusts another root already", hint=hint)
        box_id(box)
        write_file(path, data)
    return is_development(metadata)


def is_development(root: Metadata[Root]) -> bool:
    """Return whether a root is of one key for all, made for trying."""
    return bool(root.signed.unrecognized_fields.get(DEVELOPMENT_FIELD))


def fetch_release(box: Path, source: Source, channel: str) -> Trusted:
    """Read a repository, and return the release of a channel that the box may trust.

    What was seen is the floor from then on, whether the release is installed or not.

    Args:
        box: its root, which trusts a root (`trust`).
        source: where the repository is read.
        channel: which release.

    Raises:
        UsageError: the box trusts nothing yet, or there is no such channel.
        NotTrusted: see there. The box is as it was.
        UnavailableError: the repository cannot be read, or the box's disk not be read or written.
    """
    folder = box / TRUST
    if not (folder / ROOT).is_file():
        raise UsageError(f"{box} trusts nobody yet", hint=f"edgewright box trust {box} ROOT.json")
    path, cache = target_of(channel), folder / METADATA
    with explained(box), _explained(source):
        cache.mkdir(exist_ok=True)
        updater = Updater(
            str(cache),
            f"{source.url}{METADATA}/",
            target_base_url=f"{source.url}{TARGETS}/",
            fetcher=Fetcher(source),
            bootstrap=(folder / ROOT).read_bytes(),
        )
        updater.refresh()
        target = updater.get_targetinfo(path)
        if target is None:
            raise UsageError(f"{source.url} has no channel {channel}", hint="`edgewright repo check` lists them")
        release = release_of(target)
        _raise_floor(folder, cache, channel, release)
        manifest = Path(updater.download_target(target, str(folder / f"{channel}.manifest.json"))).read_bytes()
    return Trusted(channel, release, manifest)


def is_in_wave(box: Path, trusted: Trusted) -> bool:
    """Return whether a release is for this box already: each has a place between 0 and 100, another one each time."""
    with explained(box):
        name = box_id(box) + f" {trusted.channel} {trusted.release.bundle}".encode()
    place = int.from_bytes(hashlib.sha256(name).digest()[:4], "big") * 100 / 2**32
    return place < trusted.release.percent


def box_id(box: Path) -> bytes:
    """Return what tells a box from others, which is made if it is not there; a damaged one does as well."""
    path = box / TRUST / BOX_ID
    if not path.exists():
        write_file(path, secrets.token_hex(16).encode())
    return path.read_bytes()


def _raise_floor(folder: Path, cache: Path, channel: str, release: Release) -> None:
    """Hold what was verified against what was seen, and note it durably. Raises NotTrusted if it is older.

    What a role's keys have signed counts no more once a newer root, or newer targets for a channel's own role, has
    others: whoever stole one may have signed the highest version there is.
    """
    floor = noted = _read_floor(folder / FLOOR)
    given = delegated_roles(Metadata[Targets].from_file(str(cache / "targets.json")).signed)
    loaded = [*ROLES, *([role] if (role := role_of(channel)) in given else [])]
    seen = {role: Metadata.from_file(str(cache / f"{role}.json")).signed.version for role in loaded}
    roles = Metadata[Root].from_file(str(cache / "root.json")).signed.roles
    keys = {role: sorted(roles[role].keyids) for role in ROLES if role != Root.type}
    keys |= {role: sorted(one.keyids) for role, one in given.items()}
    floor = _without_gone(floor, seen, keys)
    older = [f"{role} {seen[role]} after {at}" for role, at in floor.versions.items() if seen.get(role, at) < at]
    if release.sequence < floor.sequences.get(channel, 0):
        older.append(f"release {release.sequence} after {floor.sequences[channel]}")
    if older:
        shutil.rmtree(cache)
        hint = "an old copy of the repository, or an attack; what the box has stays"
        raise NotTrusted(f"older than what this box has seen: {', '.join(older)}", hint=hint)
    for path in [cache, *cache.rglob("*")]:
        sync(path)
    versions, sequences = {**floor.versions, **seen}, {**floor.sequences, channel: release.sequence}
    raised = Floor(versions=versions, keys=keys, sequences=sequences)
    if raised != noted:
        write_file(folder / FLOOR, raised.model_dump_json().encode())


def _without_gone(floor: Floor, seen: Mapping[str, int], keys: Mapping[str, list[str]]) -> Floor:
    """Return a floor without what keys have signed that newer metadata has taken their role away from."""
    changed = {role for role, before in floor.keys.items() if before != keys.get(role)}
    newer = {role for role, version in seen.items() if version > floor.versions.get(role, 0)}
    gone = changed & set(ROLES) if Root.type in newer else set[str]()
    if Targets.type in gone:  # all that they gave away is gone too
        gone |= floor.versions.keys() - set(ROLES)
    elif Targets.type in newer:
        gone |= changed - set(ROLES)
    versions = {role: at for role, at in floor.versions.items() if role not in gone}
    if Targets.type in gone:
        return Floor(versions=versions, keys=floor.keys)
    sequences = {channel: at for channel, at in floor.sequences.items() if role_of(channel) not in gone}
    return Floor(versions=versions, keys=floor.keys, sequences=sequences)


def _read_floor(path: Path) -> Floor:
    try:
        return Floor.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Floor()
    except (ValueError, RecursionError) as error:
        hint = "restore it, or remove the folder and trust the root again: what was seen is then forgotten"
        raise RefusedError(f"{path} is damaged: {error}", hint=hint) from error


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """Translate what python-tuf raises."""
    try:
        yield
    except ExpiredMetadataError as error:
        hint = (
            f"`edgewright repo renew` renews it; or this box's clock is wrong: it says {datetime.now():%Y-%m-%d %H:%M}"
        )
        raise NotTrusted(f"{source.url}: {error}", hint=hint) from error
    except (RepositoryError, DeserializationError) as error:
        hint = "not signed by whom this box trusts, or damaged on the way; what the box has stays"
        raise NotTrusted(f"{source.url}: {error}", hint=hint) from error
    except DownloadError as error:
        raise UnavailableError(f"{source.url}: {error}", hint="what the box has stays; try again later") from error
