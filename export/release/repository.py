"""Makes and keeps a repository of releases (layout.py): the publisher's side, with the keys.

To go back, publish the older bundle: it gets a new sequence, and its files are there already. timestamp.json is written
last, so that whoever reads meanwhile has the old release or the new one, whole.

Source: python-tuf 7.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from devices.durable import aside_of, finish, write_file
from devices.errors import UsageError
from edge_agent.bundle import MANIFEST, hold_bundle
from edge_agent.progress import ByteProgressBar, no_progress_bar
from export.flash.flash import explained, is_whole
from export.release.answers import require_answers
from export.release.keys import NAMES, ROOT_THRESHOLD, Keys
from export.release.layout import (
    BLOBS,
    DEVELOPMENT_FIELD,
    METADATA,
    TARGETS,
    Release,
    delegated_roles,
    release_of,
    role_of,
    target_of,
)

Given = ParamSpec("Given")
Made = TypeVar("Made")
LIFE = {Root.type: 730, Targets.type: 365, Snapshot.type: 30, Timestamp.type: 30}  # days


@dataclass(frozen=True)
class Expiry:
    """When the first of the files that a box reads expires, as YYYY-MM-DD, and which role's that is."""

    date: str
    role: str

    @property
    def renewal(self) -> str:
        """What to do before."""
        if self.role == Root.type:
            return "`edgewright repo rotate` with two root keys"
        (name,) = NAMES.get(self.role, (self.role,))
        return f"`edgewright repo renew` with {name}.pem"


@dataclass(frozen=True)
class Published:
    """A channel's release, and until when its boxes take it."""

    channel: str
    release: Release
    until: Expiry


def _disk_explained(act: Callable[Concatenate[Path, Given], Made]) -> Callable[Concatenate[Path, Given], Made]:
    """Have what a disk does to a repository said in one line. Raises UnavailableError."""

    @wraps(act)
    def run(folder: Path, /, *given: Given.args, **named: Given.kwargs) -> Made:
        with explained(folder):
            return act(folder, *given, **named)

    return run


@_disk_explained
def init_repository(folder: Path, keys: Keys) -> Path:
    """Make an empty repository; return its root, which boxes must be given.

    Raises:
        UsageError: there is something at the folder, or a key is missing.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", hint="choose a new folder")
    root = _root_of(keys, version=1)
    (folder / METADATA).mkdir(parents=True)
    (folder / TARGETS / BLOBS).mkdir(parents=True)
    path = _write(folder, root, keys)
    _write(folder, Targets(expires=_until(Targets.type)), keys)
    _write(folder, Snapshot(expires=_until(Snapshot.type)), keys)
    _write(folder, Timestamp(expires=_until(Timestamp.type)), keys)
    return path


@_disk_explained
def publish(
    folder: Path,
    bundle: Path,
    keys: Keys,
    *,
    channel: str = "stable",
    percent: int = 100,
    answers: Path | None = None,
    at_least: int = 1,
    progress_bar: ByteProgressBar = no_progress_bar,
) -> Published:
    """Make a bundle a channel's release.

    Args:
        folder: the repository.
        bundle: a bundle's folder, or a box's root.
        keys: of releases, and those that stay online.
        channel: whose boxes shall have it.
        percent: of the boxes that may take it now; by publishing again with more, the others follow.
        answers: a folder of what boxes that have tried it said (answers.py); None to ask nobody.
        at_least: how many boxes must have taken it, if any are asked.
        progress_bar: opens a progress bar for what is copied.

    Raises:
        UsageError: no repository, channel or key, or a key that the repository's root does not know.
        BundleTampered: the bundle is not as it was exported.
        GateError: a box did not take it, or too few have answered; nothing is published.
    """
    path = target_of(channel)
    role, listing = _listing(folder, channel)
    with hold_bundle(bundle) as held:
        if answers is not None:
            require_answers(answers, held.manifest.id, at_least)
        manifest = held.manifest.to_bytes()
        files = {
            name: entry
            for name, entry in held.manifest.files.items()
            if not is_whole(_blob(folder, entry.sha256), entry)
        }
        with progress_bar("copying", sum(entry.bytes for entry in files.values())) as progress:
            for name, entry in files.items():
                blob = _blob(folder, entry.sha256)
                shutil.copyfile(held.path / name, aside_of(blob))
                finish(aside_of(blob), blob)
                progress(entry.bytes)
        before = listing.signed.targets.get(path)
        sequence = release_of(before).sequence + 1 if before else 1
        release = Release(sequence=sequence, bundle=held.manifest.id, percent=percent)
    target = TargetFile.from_data(path, manifest, ["sha256"])
    target.unrecognized_fields["custom"] = release.model_dump()
    listed = folder / TARGETS / channel / f"{target.hashes['sha256']}.{MANIFEST}"
    listed.parent.mkdir(exist_ok=True)
    write_file(listed, manifest)
    listing.signed.targets[path] = target
    _write(folder, _next(listing.signed), keys, role)
    renew(folder, keys)
    return _published(folder, channel, release)


@_disk_explained
def renew(folder: Path, keys: Keys) -> Expiry:
    """Say that the repository is still the newest; return until when that holds.

    The online key is enough. What lists releases lives a year; past half of it, it is signed again if its key is there.
    """
    targets, snapshot, timestamp = _trusted_targets(folder), _latest(folder, Snapshot), _latest(folder, Timestamp)
    listings = {Targets.type: targets}
    listings |= {role: _require_own(folder, targets.signed, role) for role in delegated_roles(targets.signed)}
    for role, listing in listings.items():
        if listing.signed.expires < _until(Targets.type, 0.5) and keys.has(role):
            _write(folder, _next(listing.signed), keys, role)
        snapshot.signed.meta[f"{role}.json"] = MetaFile(listing.signed.version)
    _write(folder, _next(snapshot.signed), keys)
    timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    _write(folder, _next(timestamp.signed), keys)
    return expiry(folder)


def expiry(folder: Path, channel: str = "") -> Expiry:
    """Return when boxes take the repository no longer; with a channel, those of that channel."""
    read = {kind.type: _latest(folder, kind) for kind in (Root, Targets, Snapshot, Timestamp)}
    own = [role for role in delegated_roles(read[Targets.type].signed) if not channel or role == role_of(channel)]
    read |= {role: _latest(folder, Targets, role) for role in own}
    role, first = min(read.items(), key=lambda one: one[1].signed.expires)
    return Expiry(f"{first.signed.expires:%Y-%m-%d}", role)


@_disk_explained
def delegate(folder: Path, channel: str, keys: Keys, own: Keys) -> Path:
    """Give a channel a key of its own, or another one; return the file that lists its release from now on.

    Whoever has that key, and the online one, publishes in this channel and in no other; the release key takes it away.

    Args:
        folder: the repository.
        channel: which; it need not have a release.
        keys: of releases, and online.
        own: the channel's key.

    Raises:
        UsageError: no repository or channel, or keys that are missing or unknown to the repository's root.
    """
    path, role = target_of(channel), role_of(channel)
    targets = _trusted_targets(folder)
    given = targets.signed
    signers = own.signers(role)
    if role in delegated_roles(given):
        content = _next(_require_own(folder, given, role).signed)
    else:
        release = given.targets.pop(path, None)
        content = Targets(expires=_until(Targets.type), targets={path: release} if release else {})
    delegations = given.delegations or Delegations({}, {})
    roles = {**(delegations.roles or {}), role: DelegatedRole(role, [], 1, True, paths=[f"{channel}/*"])}
    in_use = {keyid for one in roles.values() for keyid in one.keyids}
    given.delegations = Delegations({id_: key for id_, key in delegations.keys.items() if id_ in in_use}, roles)
    for signer in signers:
        given.add_key(signer.public_key, role)
    root = cast("Root", _latest(folder, Root).signed)
    for kind in (Snapshot.type, Timestamp.type):
        keys.signers(kind)  # are there, before anything is written
    signed = _signed(_next(given), keys.signers(Targets.type), root, keys.folder)
    listed = _save(folder, _signed(content, signers, given, own.folder, role), role)
    _save(folder, signed)
    renew(folder, keys)
    return listed


@_disk_explained
def rotate(folder: Path, keys: Keys, new: Keys) -> Path:
    """Make the next root, whose keys are new ones or the same with a new life; return its file.

    Boxes that trust an older root follow. What was signed by keys that are gone counts no more.

    Args:
        folder: the repository.
        keys: two of the root keys so far.
        new: all keys from now on; of the root two at least, of releases and online.

    Raises:
        UsageError: no repository, or keys that its root does not know.
    """
    if new.is_development and not keys.is_development:
        raise UsageError(f"{new.folder} has a development key, which alone would sign for all", hint="`keys new`")
    before = _latest(folder, Root).signed
    root = _root_of(new, before.version + 1)
    signed = _signed(root, [*keys.signers(Root.type), *new.signers(Root.type)], root, new.folder)
    _require_signed(before, signed, keys.folder)
    targets = _next(_trusted_targets(folder).signed)
    snapshot, timestamp = (_next(_latest(folder, role).signed) for role in (Snapshot, Timestamp))
    snapshot.meta["targets.json"] = MetaFile(targets.version)
    timestamp.snapshot_meta = MetaFile(snapshot.version)
    rest = [_signed(one, new.signers(one.type), root, new.folder) for one in (targets, snapshot, timestamp)]
    for metadata in rest[:2]:  # nobody reads them before the timestamp names them
        _save(folder, metadata)
    path = _save(folder, signed)
    _save(folder, rest[2])
    return path


def releases(folder: Path) -> list[Published]:
    """Return each channel's release, as the folder says; `check` proves it."""
    targets = _latest(folder, Targets).signed
    own = [_latest(folder, Targets, role).signed.targets for role in delegated_roles(targets)]
    listed = {path: target for one in [*own, targets.targets] for path, target in one.items()}
    return [_published(folder, path.split("/")[0], release_of(target)) for path, target in sorted(listed.items())]


def _published(folder: Path, channel: str, release: Release) -> Published:
    return Published(channel, release, expiry(folder, channel))


def _blob(folder: Path, sha256: str) -> Path:
    return folder / TARGETS / BLOBS / sha256


def _until(role: str, share: float = 1.0) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=LIFE[role] * share)


def _next(signed: Any) -> Any:
    """Return a role's content as that of the next version, with a new life."""
    signed.version += 1
    signed.expires = _until(signed.type)
    return signed


def _root_of(keys: Keys, version: int) -> Root:
    """Return a root that has keys, of which a development key signs alone."""
    development = {DEVELOPMENT_FIELD: True} if keys.is_development else {}
    fields = cast("dict[str, Any]", development)
    root = Root(version=version, expires=_until(Root.type), unrecognized_fields=fields)
    for role in LIFE:
        for signer in keys.signers(role):
            root.add_key(signer.public_key, role)
    if not keys.is_development:
        root.roles[Root.type].threshold = ROOT_THRESHOLD
    return root


def _write(folder: Path, signed: Signed, keys: Keys, role: str = "") -> Path:
    """Sign a role's content and write it. Raises UsageError if the repository would not have it."""
    role = role or signed.type
    giver: Root | Targets = signed if isinstance(signed, Root) else _latest(folder, Root).signed
    if role not in LIFE:
        giver = _trusted_targets(folder).signed
    return _save(folder, _signed(signed, keys.signers(role), giver, keys.folder, role), role)


def _signed(
    signed: Signed, signers: Iterable[CryptoSigner], giver: Root | Targets, keys: Path, role: str = ""
) -> Metadata[Any]:
    """Return a role's content with signatures. Raises UsageError if who gives the role does not take them."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    _require_signed(giver, metadata, keys, role)
    return metadata


def _require_signed(giver: Root | Targets, metadata: Metadata[Any], keys: Path, role: str = "") -> None:
    try:
        giver.verify_delegate(role or metadata.signed.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        hint = f"are the keys in {keys} those that the repository was made with?"
        raise UsageError(f"the repository is not signed by the keys of its root: {error}", hint=hint) from error


def _save(folder: Path, metadata: Metadata[Any], role: str = "") -> Path:
    signed = metadata.signed
    name = f"{role or signed.type}.json"
    path = folder / METADATA / (name if isinstance(signed, Timestamp) else f"{signed.version}.{name}")
    write_file(path, metadata.to_bytes())
    return path


def _trusted_targets(folder: Path) -> Metadata[Targets]:
    """Return the newest targets. Raises UsageError if the root's keys have not signed them."""
    found: Metadata[Targets] = _latest(folder, Targets)
    _require_newest_signed(folder, cast("Root", _latest(folder, Root).signed), found, Targets.type)
    return found


def _require_own(folder: Path, targets: Targets, role: str) -> Metadata[Targets]:
    """Return the newest metadata of a channel's own role. Raises UsageError if its key has not signed it."""
    found: Metadata[Targets] = _latest(folder, Targets, role)
    _require_newest_signed(folder, targets, found, role)
    return found


def _require_newest_signed(folder: Path, giver: Root | Targets, found: Metadata[Targets], role: str) -> None:
    try:
        giver.verify_delegate(role, found.signed_bytes, found.signatures)
    except (RepositoryError, ValueError) as error:
        hint = "nobody's boxes take it: remove it, or copy the repository again"
        raise UsageError(f"{folder}: its newest {role} is not signed by its own keys", hint=hint) from error


def _listing(folder: Path, channel: str) -> tuple[str, Metadata[Targets]]:
    """Return the role that lists a channel's release, `targets` or its own, and its newest metadata."""
    targets, role = _trusted_targets(folder), role_of(channel)
    if role not in delegated_roles(targets.signed):
        return Targets.type, targets
    return role, _require_own(folder, targets.signed, role)


def _latest(folder: Path, kind: type[Signed], role: str = "") -> Metadata[Any]:
    path = folder / METADATA / "timestamp.json" if kind is Timestamp else _newest(folder, role or kind.type)
    try:
        return Metadata.from_file(str(path))
    except (DeserializationError, OSError) as error:
        raise UsageError(f"{path}: {error}", hint="copy the repository again, or make a new one") from error


def _newest(folder: Path, role: str) -> Path:
    found: Iterable[Path] = (folder / METADATA).glob(f"*.{role}.json") if folder.is_dir() else ()
    numbered = {int(path.name.split(".")[0]): path for path in found if path.name.split(".")[0].isdigit()}
    if not numbered:
        raise UsageError(f"{folder} is no repository", hint="`edgewright repo init` makes one")
    return numbered[max(numbered)]
