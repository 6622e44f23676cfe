"""An image for an SD card: Raspberry Pi OS with a kit and a bundle that set themselves up at the first boot.

The operating system's image is a file of the user's; nothing is downloaded. Only its boot partition (FAT) is written,
with mtools: kit, bundle, what cloud-init reads there, and the script that it runs once. No root is needed.
Source: cloud-init's NoCloud and modules; netplan's YAML; Raspberry Pi Imager's doc/json-schema.

Does not guard against: an image whose system has no cloud-init (Raspberry Pi OS before November 2025): it boots, and
sets nothing up.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

from devices.durable import finish, sha256_of, write_file
from devices.errors import UnavailableError, UsageError
from devices.site.site import load_site
from edge_agent.bundle import hold_bundle
from edge_agent.progress import ProgressBar
from export.kit.kit import FACTS, SUMS

FOLDER, SCRIPT, MANIFEST = "edgewright", "first_boot.sh", ".rpi-imager-manifest"
PREFIX, BOX, UNITS, SITE = (
    "/opt/edgewright",
    "/var/lib/edgewright/box",
    "/etc/systemd/system",
    "/etc/edgewright/site.yaml",
)
BOOT = f"/boot/firmware/{FOLDER}"  # where Raspberry Pi OS and Ubuntu mount the boot partition
LARGEST_FILE = 2**32 - 1  # of FAT
OVER_SSH = "a larger model goes on the running box: edgewright flash BUNDLE ssh://USER@HOST/var/lib/edgewright/box"
SECTOR, FAT_TYPES = 512, (0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E)
BLOCK = 1 << 20
# Source: Raspberry Pi Imager's list of devices; by how the name of a target begins.
BOARDS = {"rpi5": ("Raspberry Pi 5", "pi5-64bit"), "rpi4": ("Raspberry Pi 4", "pi4-64bit")}
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_KEY = re.compile(r"(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-\S+|sk-\S+) \S+.*")


@dataclass(frozen=True)
class Wifi:
    """A wireless network: its name, its passphrase of 8 to 63 characters, and the country's two letters."""

    ssid: str
    passphrase: str
    country: str

    def __post_init__(self) -> None:
        if not 8 <= len(self.passphrase) <= 63 or not 1 <= len(self.ssid.encode()) <= 32:
            raise UsageError("a wireless network's name has 1 to 32 bytes, and its passphrase 8 to 63 characters")
        if not re.fullmatch("[A-Z]{2}", self.country):
            raise UsageError(f"no country: {self.country!r}", hint="its two letters, as --wifi-country DE")

    @property
    def key(self) -> str:
        """The key that its passphrase makes (IEEE 802.11, PSK), in hexadecimal: it opens this network alone."""
        return hashlib.pbkdf2_hmac("sha1", self.passphrase.encode(), self.ssid.encode(), 4096, 32).hex()


@dataclass(frozen=True)
class Host:
    """What the box is called, who logs in, by which public keys, and its wireless network, if it has one."""

    name: str
    user: str
    ssh_keys: tuple[str, ...]
    wifi: Wifi | None = None

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.name):
            raise UsageError(f"no host name: {self.name!r}", hint="small letters, digits and -")
        if not _USER.fullmatch(self.user) or self.user == "root":
            raise UsageError(f"no user: {self.user!r}", hint="small letters, digits, _ and -; not root")
        if not self.ssh_keys or not all(map(_KEY.fullmatch, self.ssh_keys)):
            raise UsageError(
                "no public key for SSH", hint="the file that ends in .pub; ssh-keygen -t ed25519 makes one"
            )

    def files(self) -> dict[str, str]:
        """Return what cloud-init reads at the first boot: by name, `user-data` and `network-config`."""
        user = {
            "name": self.user,
            "groups": "users,adm,sudo,dialout,gpio,i2c,spi,video,netdev",
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": True,
            "ssh_authorized_keys": list(self.ssh_keys),
        }
        data = {
            "hostname": self.name,
            "manage_etc_hosts": True,
            "users": [user],
            "ssh_pwauth": False,
            "enable_ssh": True,  # Raspberry Pi OS's own module; others ignore it
            "runcmd": [["sh", f"{BOOT}/{SCRIPT}"]],
        }
        found = {"user-data": f"#cloud-config\n{_yaml(data)}"}
        network: dict[str, Any] = {
            "version": 2,
            "ethernets": {"eth0": {"dhcp4": True, "dhcp6": True, "optional": True}},
        }
        if self.wifi:
            access = {self.wifi.ssid: {"password": self.wifi.key}}
            network["wifis"] = {
                "wlan0": {
                    "dhcp4": True,
                    "regulatory-domain": self.wifi.country,
                    "access-points": access,
                    "optional": True,
                }
            }
        return found | {"network-config": _yaml({"network": network})}


@dataclass(frozen=True)
class Card:
    """What was written: the image, the manifest that Raspberry Pi Imager opens, and how large the image is."""

    image: str
    manifest: str
    size_bytes: int


def make_card(
    kit: Path,
    bundle: Path,
    system: Path,
    out: Path,
    host: Host,
    progress: ProgressBar,
    *,
    site: Path | None = None,
    is_live: bool = False,
) -> Card:
    """Write an image that sets a box up at its first boot, and its manifest beside it.

    Args:
        kit: as `build_kit` makes it, for the box's machine and its Python.
        bundle: or a box's root.
        system: the operating system's image, .img or .img.xz, with a FAT partition first.
        out: the new image.
        host: what the box is called, and who may log in.
        progress: told of what takes long.
        site: another site than the bundle's.
        is_live: whether the service moves real devices.

    Raises:
        UsageError: `out` or its manifest is there already, or kit, system or site are not what they should be.
        UnavailableError: mtools is missing, or the boot partition or the disk has no room.
        RefusedError: the bundle is damaged.
    """
    if shutil.which("mcopy") is None:
        raise UnavailableError("mtools is missing", hint="sudo apt install mtools (macOS: brew install mtools)")
    manifest = out.with_name(out.name + MANIFEST)
    if taken := [path for path in (out, manifest) if path.exists()]:
        raise UsageError(f"{taken[0]} is there already", hint="give a new file, or remove it")
    facts = _kit_facts(kit)
    if site:
        load_site(str(site))
    if not system.is_file():
        raise UsageError(
            f"{system} is not there",
            hint="an image that you have downloaded, such as Raspberry Pi OS Lite (64-bit) of November 2025 or newer",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        hold_bundle(bundle) as held,
        tempfile.TemporaryDirectory(prefix=".card-", dir=out.parent) as aside,
    ):
        image, tree = Path(aside) / "image", Path(aside) / FOLDER
        if large := [path.name for path in held.path.iterdir() if path.stat().st_size > LARGEST_FILE]:
            raise UnavailableError(
                f"{large[0]} is larger than 4 GiB, which the boot partition's FAT cannot hold", hint=OVER_SSH
            )
        _unpack(system, image, progress)
        tree.mkdir()
        options = [*(["--site", SITE] if site else []), *(["--live"] if is_live else [])]
        (tree / SCRIPT).write_text(first_boot(held.manifest.id, options), encoding="utf-8")
        if site:
            shutil.copyfile(site, tree / "site.yaml")
        at = _boot_partition(image)
        progress.note("writing the boot partition")
        for name, text in host.files().items():
            (Path(aside) / name).write_text(text, encoding="utf-8")
            _copy(image, at, Path(aside) / name, name)
        _copy(image, at, tree, "")
        _copy(image, at, kit, f"{FOLDER}/kit")
        _copy(image, at, held.path, f"{FOLDER}/bundle")
        title = f"Edgewright: {held.manifest.site} on {host.name}"
        finish(image, out)
    entry = imager_entry(out, title, str(facts["target"]))
    write_file(manifest, (json.dumps(entry, indent=1) + "\n").encode())
    return Card(str(out), str(manifest), out.stat().st_size)


def first_boot(bundle_id: str, options: list[str], places: Mapping[str, str] | None = None) -> str:
    """Return the script that cloud-init runs once. `places` stand for PREFIX, BOX, UNITS and SITE."""
    site = SITE if "--site" in options else ""
    found = {"PREFIX": PREFIX, "BOX": BOX, "UNITS": UNITS, "SITE": site} | dict(places or {})
    text = (Path(__file__).parent / SCRIPT).read_text(encoding="utf-8")
    for key, value in found.items():
        text = text.replace(f"@{key}@", shlex.quote(value))
    return text.replace("@ID@", bundle_id).replace("@OPTIONS@", shlex.join(options))


def imager_entry(image: Path, title: str, target: str) -> dict[str, Any]:
    """Return a manifest for Raspberry Pi Imager: its list of systems with this image, which it writes as it is."""
    size, board = image.stat().st_size, next((found for key, found in BOARDS.items() if target.startswith(key)), None)
    system = {
        "name": title,
        "description": f"sets itself up at the first boot; made for {target}",
        "icon": "icons/use_custom.png",
        "url": image.absolute().as_uri(),
        "extract_size": size,
        "extract_sha256": sha256_of(image),
        "image_download_size": size,
        "release_date": date.today().isoformat(),
        "init_format": "none",  # user and network are in the image; Imager would write over them
    }
    if board is None:
        return {"os_list": [system]}
    name, tag = board
    device = {"name": name, "description": "", "icon": "", "tags": [tag], "matching_type": "exclusive"}
    return {"imager": {"devices": [device]}, "os_list": [system | {"devices": [tag]}]}


def read_public_key(path: Path) -> str:
    """Return the public key in a file; UsageError if it holds another thing, such as the private one."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not _KEY.fullmatch(text):
        raise UsageError(f"{path} is no public key for SSH", hint="the file beside it that ends in .pub")
    return text


def _kit_facts(kit: Path) -> dict[str, Any]:
    try:
        facts = json.loads((kit / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{kit} is no kit", hint="edgewright box build --target rpi5-8gb --out KIT") from None
    if not (kit / SUMS).is_file():
        raise UsageError(f"{kit} is not whole: {SUMS} is missing", hint="make it again")
    return cast("dict[str, Any]", facts)


def _unpack(system: Path, image: Path, progress: ProgressBar) -> None:
    """Copy the system's image, unpacked if it is .xz."""
    total = system.stat().st_size
    try:
        descriptor = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # it holds the network's key
        with system.open("rb") as raw, os.fdopen(descriptor, "wb") as written, ExitStack() as opened:
            source = opened.enter_context(lzma.open(raw)) if system.suffix == ".xz" else raw
            while block := source.read(BLOCK):
                written.write(block)
                done = raw.tell()
                progress.show(done, total, f"{done / 1e6:.0f} of {total / 1e6:.0f} MB of the system's image")
    except (lzma.LZMAError, EOFError) as error:
        raise UsageError(f"{system} is no whole .xz file: {error}", hint="download it again") from None
    except OSError as error:
        hint = "it takes as much room as the system's image unpacked"
        raise UnavailableError(f"{system} could not be copied: {error.strerror}", hint=hint) from error


def _boot_partition(image: Path) -> int:
    """Return where the first FAT partition of an image begins, in bytes; UsageError if its table (MBR) has none."""
    with image.open("rb") as file:
        table = file.read(SECTOR)
    if len(table) == SECTOR and table[510:] == b"\x55\xaa":
        for start in range(446, 510, 16):
            entry = table[start : start + 16]
            if entry[4] in FAT_TYPES:
                return int.from_bytes(entry[8:12], "little") * SECTOR
    raise UsageError("the system's image has no FAT partition in its table", hint="an .img or .img.xz for an SD card")


def _copy(image: Path, at: int, source: Path, target: str) -> None:
    """Copy a file or a folder into the FAT file system that begins at a place of an image."""
    words = ["mcopy", "-s", "-o", "-i", f"{image}@@{at}", str(source), f"::/{target}"]
    found = subprocess.run(
        words, env=os.environ | {"MTOOLS_SKIP_CHECK": "1"}, capture_output=True, text=True, check=False
    )
    problem = (found.stderr or found.stdout).strip().splitlines()
    if found.returncode or problem:
        text = problem[-1] if problem else f"mcopy ended with {found.returncode}"
        hint = OVER_SSH if "full" in text.lower() else ""
        raise UnavailableError(f"the boot partition does not take {source.name}: {text}", hint=hint)


def _yaml(data: Mapping[str, Any]) -> str:
    """Return data as JSON, which is YAML too, with every string in quotes: the country NO is false without."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
