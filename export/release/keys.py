"""Keys that sign releases, each in a file of its own: three of the root, one of releases, one that may stay online.

A channel may have a key of its own, which signs no other channel's releases.

Two of the three root keys decide which other keys count; keep them offline, and apart. A development key is one for all
roles, and boxes that trust it say so.

Does not guard against: whoever copies a key's file. A passphrase (EDGEWRIGHT_KEYS_PASSPHRASE) encrypts it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from devices.errors import UsageError
from export.release.layout import role_of

PASSPHRASE = "EDGEWRIGHT_KEYS_PASSPHRASE"  # noqa: S105 (a variable's name)
ROOTS, ROOT_THRESHOLD = ("root-1", "root-2", "root-3"), 2
RELEASE, ONLINE, DEVELOPMENT = "release", "online", "development"
NAMES = {Root.type: ROOTS, Targets.type: (RELEASE,), Snapshot.type: (ONLINE,), Timestamp.type: (ONLINE,)}


@dataclass(frozen=True)
class Keys:
    """A folder of keys; not all need be there."""

    folder: Path

    @property
    def is_development(self) -> bool:
        """Whether one key signs all."""
        return (self.folder / f"{DEVELOPMENT}.pem").is_file()

    def has(self, role: str) -> bool:
        """Return whether a key of a role is there."""
        return bool(self._files(role))

    def signers(self, role: str) -> list[CryptoSigner]:
        """Return the keys of a role that are there. Raises UsageError if none is, or one cannot be read."""
        found = self._files(role)
        if not found:
            names = " or ".join(f"{name}.pem" for name in self._names(role))
            hint = f"`edgewright keys new {self.folder}` makes keys"
            raise UsageError(f"{self.folder} has no key of the role {role}: {names}", hint=hint)
        return [_load(path) for path in found]

    def _files(self, role: str) -> list[Path]:
        return [path for name in self._names(role) if (path := self.folder / f"{name}.pem").is_file()]

    def _names(self, role: str) -> tuple[str, ...]:
        return (DEVELOPMENT,) if self.is_development else NAMES.get(role, (role,))


def new_keys(folder: Path, *, is_development: bool = False, channel: str = "") -> list[Path]:
    """Make keys (ed25519) in a new folder, readable for their owner alone; return their files.

    Args:
        folder: where.
        is_development: one for all roles.
        channel: only the own key of this channel.

    Raises:
        UsageError: there is something at the folder, or no channel has such a name.
    """
    names = (role_of(channel),) if channel else (DEVELOPMENT,) if is_development else (*ROOTS, RELEASE, ONLINE)
    if folder.exists():
        raise UsageError(f"{folder} is there already", hint="choose another folder: no key is written over")
    folder.mkdir(mode=0o700, parents=True)
    passphrase = _passphrase()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    paths = []
    for name in names:
        private = load_pem_private_key(CryptoSigner.generate_ed25519().private_bytes, None)
        paths.append(folder / f"{name}.pem")
        descriptor = os.open(paths[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return paths


def _passphrase() -> bytes | None:
    return os.environ.get(PASSPHRASE, "").encode() or None


def _load(path: Path) -> CryptoSigner:
    data = path.read_bytes()
    passphrase = _passphrase() if b"ENCRYPTED" in data else None
    try:
        return CryptoSigner(load_pem_private_key(data, passphrase))
    except (TypeError, ValueError) as error:
        hint = (
            f"is {PASSPHRASE} set to its passphrase?" if b"ENCRYPTED" in data else "is it a key that `keys new` made?"
        )
        raise UsageError(f"{path} cannot be read as a key: {error}", hint=hint) from error
