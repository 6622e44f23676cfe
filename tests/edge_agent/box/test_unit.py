from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devices.driver import Needs
from devices.errors import UsageError
from edge_agent.box.unit import STATE, unit_text

BOX = Path(STATE) / "box"
SERIAL = Needs(devices=("/dev/ttyUSB7", "/dev/gpiochip[04]", "/dev/i2c-1"))
MOST_EXPOSED = 2.0
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


def line(text: str, key: str) -> list[str]:
    return [one.partition("=")[2] for one in text.splitlines() if one.partition("=")[0] == key]


def test_a_site_without_device_files_gets_none() -> None:
    text = unit_text("the home", ["--live"], BOX, Needs())
    assert line(text, "PrivateDevices") == ["yes"] and not line(text, "DeviceAllow")
    assert line(text, "DynamicUser") == ["yes"]
    assert line(text, "ExecStart")[0].endswith(f"bin/edgewright serve {BOX} --live")


def test_a_site_with_device_files_gets_those_and_their_groups() -> None:
    text = unit_text("the arm", ["--live"], BOX, SERIAL)
    assert line(text, "DeviceAllow") == ["/dev/ttyUSB7 rw", "char-gpiochip rw", "/dev/i2c-1 rw"]
    assert line(text, "SupplementaryGroups") == ["dialout gpio i2c"]
    assert not line(text, "PrivateDevices")


def test_the_box_must_be_where_the_service_may_write(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not under /var/lib/edgewright") as found:
        unit_text("x", [], tmp_path, Needs())
    assert "--user" in found.value.hint
    text = unit_text("x", [], tmp_path, Needs(), user="pi")
    assert line(text, "User") == ["pi"] and line(text, "ReadWritePaths") == [str(tmp_path)]


@needs_systemd
def test_words_of_the_command_survive_systemd(tmp_path: Path) -> None:
    words = ["--site", 'my site\'s "$HOME" 100%.yaml']
    text = unit_text("a title", words, BOX, Needs())
    [command] = line(text, "ExecStart")
    assert '"my site\'s \\"$$HOME\\" 100%%.yaml"' in command
    assert verified(text, tmp_path) == ""


@needs_systemd
@pytest.mark.parametrize("needs", [Needs(), SERIAL], ids=["no device files", "device files"])
def test_systemd_takes_the_unit_and_finds_it_tight(needs: Needs, tmp_path: Path) -> None:
    text = unit_text("the home", ["--live"], BOX, needs)
    assert verified(text, tmp_path) == ""
    found = analyzed(tmp_path, "security", "--offline=true")
    assert float(re.search(r"exposure level for .*: ([\d.]+)", found)[1]) < MOST_EXPOSED  # type: ignore[index]


@needs_systemd
def test_systemd_analyze_would_see_a_wrong_unit(tmp_path: Path) -> None:
    text = unit_text("the home", [], BOX, Needs()).replace("RestartSec=2", "RestartSec=soon")
    assert "Failed to parse sec value" in verified(text, tmp_path)


def verified(text: str, folder: Path) -> str:
    program = Path(sys.prefix) / "bin" / "edgewright"
    (folder / "edgewright.service").write_text(text.replace(str(program), "/bin/true"), encoding="utf-8")
    return analyzed(folder, "verify", "--man=no")


def analyzed(folder: Path, verb: str, *options: str) -> str:
    command = ["systemd-analyze", verb, *options, str(folder / "edgewright.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "\n".join(one for one in (done.stdout + done.stderr).splitlines() if "edgewright" in one)
