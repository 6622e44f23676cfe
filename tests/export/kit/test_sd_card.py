"""SD cards: what stands on the boot partition, what cloud-init is told, and the first boot run for real."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devices.errors import UnavailableError, UsageError
from devices.site.site import load_site
from edge_agent.bundle import Bundle, find_bundle
from edge_agent.progress import ProgressBar
from export.kit.sd_card import BOX, SITE, Host, Wifi, first_boot, imager_entry, make_card, read_public_key
from tests.export.kit.test_kit import made_kit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJtest me@here"
HOST = Host("yard-box", "pi", (KEY,), Wifi("Café of Oslo", "correct horse", "NO"))
needs_mtools = pytest.mark.skipif(shutil.which("mcopy") is None, reason="Debian's mtools is not installed")


def system_image(path: Path, megabytes: int = 64, kind: int = 0x0C) -> Path:
    """Write a disk with a table and one FAT partition at 1 MiB, as Raspberry Pi OS has it."""
    start, sectors = 2048, (megabytes - 1) * 2048
    entry = bytes(4) + bytes([kind]) + bytes(3) + start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    path.write_bytes(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    os.truncate(path, megabytes << 20)
    if kind == 0x0C:
        command = ["mformat", "-i", f"{path}@@1M", "-F", "-T", str(sectors), "-v", "bootfs", "::"]
        subprocess.run(command, check=True, capture_output=True)
    return path


def read(image: Path, name: str) -> str:
    """Return the text of a file on the boot partition."""
    found = subprocess.run(["mtype", "-i", f"{image}@@1M", f"::/{name}"], capture_output=True, text=True, check=True)
    return found.stdout


@needs_mtools
def test_a_card_holds_the_kit_the_bundle_and_what_cloud_init_reads(three: list[Bundle], tmp_path: Path) -> None:
    kit, packed = made_kit(tmp_path / "kit"), tmp_path / "system.img.xz"
    packed.write_bytes(lzma.compress(system_image(tmp_path / "plain.img").read_bytes(), preset=0))
    own = tmp_path / "mine.yaml"
    own.write_text((Path("devices/sites/home.yaml")).read_text(encoding="utf-8"), encoding="utf-8")
    card = make_card(kit, three[0].path, packed, tmp_path / "card.img", HOST, ProgressBar(), site=own, is_live=True)
    image = Path(card.image)
    assert image.stat().st_mode & 0o077 == 0  # it holds the network's key
    data = read(image, "user-data")
    assert data.startswith("#cloud-config\n")
    told = json.loads(data.removeprefix("#cloud-config\n"))
    assert told["hostname"] == "yard-box" and told["users"][0]["ssh_authorized_keys"] == [KEY]
    assert told["ssh_pwauth"] is False and told["users"][0]["lock_passwd"] is True
    assert told["runcmd"] == [["sh", "/boot/firmware/edgewright/first_boot.sh"]]
    network = json.loads(read(image, "network-config"))["network"]["wifis"]["wlan0"]
    assert network["regulatory-domain"] == "NO"  # in quotes: without them YAML reads false
    key = network["access-points"]["Café of Oslo"]["password"]
    assert len(key) == 64 and "correct horse" not in data + key
    assert "--live" in read(image, "edgewright/first_boot.sh")
    assert load_site_text(read(image, "edgewright/site.yaml"), tmp_path) == "home"
    out = tmp_path / "back"
    subprocess.run(["mcopy", "-s", "-i", f"{image}@@1M", "::/edgewright", str(out)], check=True)
    for folder, source in (("kit", kit), ("bundle", three[0].path)):
        found = {
            path.relative_to(out / folder): path.read_bytes() for path in (out / folder).rglob("*") if path.is_file()
        }
        assert found == {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    manifest = json.loads(Path(card.manifest).read_text(encoding="utf-8"))
    (system,) = manifest["os_list"]
    assert system["url"] == image.as_uri() and system["init_format"] == "none"
    assert system["extract_size"] == card.size_bytes == image.stat().st_size
    with pytest.raises(UsageError, match="is there already"):
        make_card(kit, three[0].path, packed, image, HOST, ProgressBar())


def load_site_text(text: str, folder: Path) -> str:
    (folder / "again.yaml").write_text(text, encoding="utf-8")
    return load_site(str(folder / "again.yaml")).name


@needs_mtools
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("no kit", "is no kit"),
        ("no site", "none.yaml"),
        ("manifest", "is there already"),
        ("no image", "is not there"),
        ("no table", "no FAT partition"),
        ("no FAT", "no FAT partition"),
        ("cut xz", "no whole .xz file"),
        ("small", "does not take"),
    ],
)
def test_what_makes_no_card_is_said_and_leaves_nothing(
    broken: str, message: str, three: list[Bundle], tmp_path: Path
) -> None:
    kit, system = made_kit(tmp_path / "kit"), tmp_path / "system.img"
    if broken == "no kit":
        (kit / "kit.json").unlink()
    if broken == "no table":
        system.write_bytes(b"no disk")
    elif broken == "no FAT":
        system_image(system, kind=0x83)
    elif broken == "cut xz":
        system = system.with_suffix(".img.xz")
        system.write_bytes(lzma.compress(bytes(100_000))[:-40])
    elif broken == "small":
        (kit / "wheels" / "large.whl").write_bytes(os.urandom(60 << 20))
        system_image(system, 48)
    elif broken != "no image":
        system_image(system)
    site = tmp_path / "none.yaml" if broken == "no site" else None
    (tmp_path / "out").mkdir()
    if broken == "manifest":
        (tmp_path / "out" / "card.img.rpi-imager-manifest").write_text("mine", encoding="utf-8")
    before = list(tmp_path.glob("out/*"))
    with pytest.raises((UsageError, UnavailableError), match=message):
        make_card(kit, three[0].path, system, tmp_path / "out" / "card.img", HOST, ProgressBar(), site=site)
    assert list(tmp_path.glob("out/*")) == before


@pytest.mark.parametrize(
    ("name", "user", "keys"),
    [("Yard Box", "pi", (KEY,)), ("box", "root", (KEY,)), ("box", "pi", ()), ("box", "pi", ("PRIVATE KEY",))],
)
def test_a_host_that_nobody_could_log_in_to_is_refused(name: str, user: str, keys: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Host(name, user, keys)


@pytest.mark.parametrize(("passphrase", "country"), [("short", "NO"), ("x" * 64, "NO"), ("long enough", "Norway")])
def test_a_network_that_could_not_be_joined_is_refused(passphrase: str, country: str) -> None:
    with pytest.raises(UsageError):
        Wifi("home", passphrase, country)


def test_the_key_of_a_network_is_that_of_the_standard() -> None:
    """The test vector of IEEE 802.11i, H.4.1."""
    expected = "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert Wifi("IEEE", "password", "US").key == expected


def test_only_a_public_key_is_put_on_a_card(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n", encoding="utf-8")
    (tmp_path / "id.pub").write_text(KEY + "\n", encoding="utf-8")
    assert read_public_key(tmp_path / "id.pub") == KEY
    for name in ("id", "none"):
        with pytest.raises(UsageError):
            read_public_key(tmp_path / name)


def test_imager_is_told_which_board_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "card.img").write_bytes(b"x")
    entry = imager_entry(tmp_path / "card.img", "mine", "rpi5-8gb")
    assert entry["os_list"][0]["devices"] == entry["imager"]["devices"][0]["tags"] == ["pi5-64bit"]
    assert "imager" not in imager_entry(tmp_path / "card.img", "mine", "x86-8gb")


@pytest.mark.parametrize("has_systemd", [True, False])
def test_the_first_boot_flashes_and_starts_the_service(
    three: list[Bundle], tmp_path: Path, *, has_systemd: bool
) -> None:
    """The real script with the real commands; only install.sh and systemctl are stood in for."""
    here, prefix, box, units = (tmp_path / name for name in ("card", "prefix", "state/box", "units"))
    program = Path(sys.executable).with_name("edgewright")
    for folder in (here / "kit", prefix / "current/bin", units, tmp_path / "bin"):
        folder.mkdir(parents=True)
    (here / "kit/install.sh").write_text(f'ln -sf {program} "$1/current/bin/edgewright"\n', encoding="utf-8")
    shutil.copytree(find_bundle(three[0].path), here / "bundle")
    (here / "site.yaml").write_text(Path("devices/sites/home.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    site = tmp_path / "etc/site.yaml"
    places = {"PREFIX": str(prefix), "BOX": str(box), "UNITS": str(units), "SITE": str(site)}
    options = ["--site", str(site), "--user", "pi"]
    (here / "first_boot.sh").write_text(first_boot("b1", options, places), encoding="utf-8")
    (tmp_path / "bin/systemctl").write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/called\n{"" if has_systemd else "exit 1"}\n', encoding="utf-8"
    )
    (tmp_path / "bin/systemctl").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    for _ in range(2):  # run again, it repairs
        found = subprocess.run(["sh", str(here / "first_boot.sh")], env=environment, check=False)
        log = (here / "setup.log").read_text(encoding="utf-8")
        assert (found.returncode == 0) == has_systemd == ("set up\n" in log), log
    assert find_bundle(box).is_dir() and load_site(str(site)).name == "home"
    unit = (units / "edgewright.service").read_text(encoding="utf-8")
    assert f"serve {box} --site {site}" in unit
    if has_systemd:
        assert (tmp_path / "called").read_text(encoding="utf-8").splitlines()[:2] == [
            "daemon-reload", "enable --now edgewright"
        ]  # fmt: skip


def test_what_the_script_says_of_the_box_is_what_the_unit_may_write_to() -> None:
    script = first_boot("b1", ["--site", SITE, "--live"])
    assert f"box={BOX}" in script and f"site={SITE}" in script and "@" not in script
    assert "site=''" in first_boot("b1", ["--live"])
