"""Flash over SSH: the box's side alone, and the whole way through a real sshd on the loopback address."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgewright
from devices.errors import UnavailableError, UsageError
from edge_agent.bundle import BUNDLES, CURRENT, MANIFEST, MODEL, BundleTampered, open_bundle
from export.flash import receive as receiving
from export.flash.flash import STAGING, flash
from export.flash.receive import PART, clear, receive
from export.flash.ssh import Remote
from tests.ports import free_port
from tests.tiny_bundle import make_tiny_bundle

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
ROOT = Path(__file__).parents[3]


def manifest_of(bundle: Path) -> bytes:
    return (bundle / MANIFEST).read_bytes()


def send(bundle: Path, folder: str, name: str, offset: int, end: int | None = None) -> None:
    with (Path(folder) / f"{name}{PART}").open("ab") as file:
        file.write((bundle / name).read_bytes()[offset:end])


def test_what_has_arrived_is_gone_on_with_and_then_flashed(tmp_path: Path) -> None:
    bundle, box = make_tiny_bundle(tmp_path / "bundle"), tmp_path / "box"
    names = set(open_bundle(bundle).manifest.files)
    assert set(receive(box, manifest_of(bundle), dry_run=True).missing) == names and not box.exists()
    first = receive(box, manifest_of(bundle))
    assert dict(first.missing) == dict.fromkeys(names, 0)
    send(bundle, first.folder, MODEL, 0, 100)
    assert receive(box, manifest_of(bundle)).missing[MODEL] == 100
    for name in names:
        send(bundle, first.folder, name, 100 if name == MODEL else 0)
    whole = receive(box, manifest_of(bundle))
    assert (whole.missing, whole.missing_bytes) == ({}, 0)
    flash(Path(whole.folder), box)
    clear(box)
    assert open_bundle(box).manifest == open_bundle(bundle).manifest and not (box / STAGING).exists()


def test_what_arrived_damaged_is_sent_again_and_other_bundles_are_forgotten(tmp_path: Path) -> None:
    bundle, other = make_tiny_bundle(tmp_path / "bundle"), make_tiny_bundle(tmp_path / "other", 1)
    box = tmp_path / "box"
    folder = receive(box, manifest_of(bundle)).folder
    size = (bundle / MODEL).stat().st_size
    (Path(folder) / f"{MODEL}{PART}").write_bytes(b"x" * size)
    assert receive(box, manifest_of(bundle)).missing[MODEL] == 0
    receive(box, manifest_of(other))
    assert not Path(folder).exists()
    with pytest.raises(BundleTampered, match="the manifest that was sent"):
        receive(box, manifest_of(bundle)[:-20])
    with pytest.raises(UsageError, match="is not there"):
        receive(tmp_path / "none" / "box", manifest_of(bundle))


def test_a_large_file_that_the_box_has_is_neither_sent_nor_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.flash.flash.LINKED_BYTES", 1)
    bundle, box = make_tiny_bundle(tmp_path / "bundle"), tmp_path / "box"
    flash(bundle, box)
    again = shutil.copytree(bundle, tmp_path / "again")
    found = receive(box, manifest_of(again))
    assert found.missing == {}
    on_box = next((box / BUNDLES).iterdir()) / MODEL
    assert (Path(found.folder) / MODEL).stat().st_ino == on_box.stat().st_ino
    monkeypatch.setattr(
        receiving, "require_space", lambda target, size: (_ for _ in ()).throw(UnavailableError("full"))
    )
    with pytest.raises(UnavailableError, match="full"):
        receive(box, manifest_of(again))


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("ssh://pi@box.local/home/pi/box", "pi@box.local", None, "/home/pi/box"),
        ("ssh://box:2222/~/my%20box", "box", 2222, "my box"),
        ("ssh://10.0.0.7/srv/box", "10.0.0.7", None, "/srv/box"),
    ],
)
def test_addresses(url: str, host: str, port: int | None, path: str) -> None:
    found = Remote.parse(url, "edgewright")
    assert (found.host, found.port, found.path) == (host, port, path)


@pytest.mark.parametrize(
    "url", ["ssh://", "ssh://box", "ssh://box/", "ssh://box:x/a", "ssh://a:b@box/c", "ssh://box/a?b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"ssh://pi@controller\.local|box"):
        Remote.parse(url, "edgewright")


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[list[str]]:
    """A real SSH server; yields the options with which a client gets in."""
    if not Path(SSHD).exists() or not shutil.which("ssh-keygen") or os.geteuid() != 0:
        pytest.skip("needs sshd (scripts/test_packages.sh) and root")
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    port = free_port()
    settings = [f"Port={port}", "ListenAddress=127.0.0.1", f"HostKey={tmp_path / 'host'}", "UsePAM=no",
                f"AuthorizedKeysFile={tmp_path / 'key.pub'}", "StrictModes=no", "PermitRootLogin=yes"]  # fmt: skip
    command = [SSHD, "-D", "-f", "/dev/null", "-E", str(tmp_path / "log"), *(f"-o{one}" for one in settings)]
    process = subprocess.Popen(command)
    try:
        for _ in range(100):
            with socket.socket() as trying:
                if trying.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield ["-o", f"Port={port}", "-o", f"IdentityFile={tmp_path / 'key'}", "-o", "StrictHostKeyChecking=no",
               "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]  # fmt: skip
    finally:
        process.terminate()
        process.wait()


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_bundle_goes_to_a_box_and_back_over_a_real_sshd(
    sshd: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two, box = make_tiny_bundle(tmp_path / "one"), make_tiny_bundle(tmp_path / "two", 1), tmp_path / "a box"
    url = f"ssh://{getpass.getuser()}@127.0.0.1{str(box).replace(' ', '%20')}"
    there = f"env PYTHONPATH={ROOT} {sys.executable} -c 'import edgewright; edgewright.command()'"
    words = ["--no-prime", "--no-selftest", "--on-box", there, *[w if w != "-o" else "--ssh-option" for w in sshd]]

    assert edgewright.main(["flash", str(one), url, "--dry-run", *words]) == 0
    assert "would send" in capfd.readouterr().err and not box.exists()
    assert edgewright.main(["flash", str(one), url, "--json", *words]) == 0
    assert json.loads(capfd.readouterr().out)["id"] == open_bundle(one).manifest.id == open_bundle(box).manifest.id
    assert not (box / STAGING).exists()
    assert edgewright.main(["flash", str(two), url, *words]) == 0
    assert (box / CURRENT).resolve().name == open_bundle(two).manifest.id
    capfd.readouterr()
    assert edgewright.main(["flash", "--rollback", url, *words]) == 0
    assert (box / CURRENT).resolve().name == open_bundle(one).manifest.id

    nowhere = f"ssh://{getpass.getuser()}@127.0.0.1{tmp_path}/not/there"
    assert edgewright.main(["flash", str(one), nowhere, *words]) == 2
    assert "is the box's disk mounted?" in capfd.readouterr().err
    missing = [word if word != there else "edgewright-that-is-not-there" for word in words]
    assert edgewright.main(["flash", str(one), url, *missing]) == 2
    assert "has no edgewright-that-is-not-there" in capfd.readouterr().err
    closed = [word if not word.startswith("Port=") else "Port=1" for word in words]
    assert edgewright.main(["flash", str(one), url, *closed]) == 3
    assert "what was sent stays there" in capfd.readouterr().err
