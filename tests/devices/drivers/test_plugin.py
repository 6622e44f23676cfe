"""A driver from another package, as docs/drivers.md says: a file and an entry point."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devices.drivers.registry import driver_types, load_checked_site, open_driver
from devices.errors import UsageError
from devices.site.site import load_site
from edgewright import main

MODULE = """
from devices.driver import DriverType, Reading
from devices.yaml_file import Strict


class Settings(Strict):
    type: str
    start: int = 0


class Place(Strict):
    cell: str


class Memory:
    def __init__(self, settings, bindings, clock):
        self.bindings, self.clock = bindings, clock
        self.cells = {address.cell: False for binding in bindings.values() for address in binding.at.values()}

    def read(self, device):
        return {name: Reading(self.cells[at.cell], self.clock()) for name, at in self.bindings[device].at.items()}

    def write(self, device, values):
        for name, value in values.items():
            self.cells[self.bindings[device].at[name].cell] = value

    def close(self):
        pass


DRIVER = DriverType(settings=Settings, address=Place, open=Memory)
NOT_ONE = 3
"""
SITE = """schema: site/v1
name: plugged
title: a place
drivers: {it: {type: TYPE}}
devices: {lamp: {model: light, driver: it, at: {"on": {cell: a}}}}
"""


@pytest.fixture
def site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site for the plug-in `memory`, which is installed beside it."""
    package, metadata = tmp_path / "memory_bus", tmp_path / "memory_bus-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").write_text(MODULE, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: memory-bus\nVersion: 1.0\n", encoding="utf-8")
    points = (
        "memory = memory_bus:DRIVER\nbroken = memory_bus:GONE\nodd = memory_bus:NOT_ONE\nmqtt = memory_bus:DRIVER\n"
    )
    (metadata / "entry_points.txt").write_text(f"[edgewright.drivers]\n{points}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "site.yaml"
    file.write_text(SITE.replace("TYPE", "memory"), encoding="utf-8")
    return file


def test_a_plug_in_is_checked_and_worked_like_ours(site_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "memory" in driver_types()
    assert main(["devices", "check", str(site_file)]) == 0 and "memory" in capsys.readouterr().out
    driver = open_driver(load_site(site_file))
    driver.write("lamp", {"on": True})
    assert driver.read("lamp")["on"].value is True


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("broken", "the driver plug-in broken cannot be loaded"),
        ("odd", "the driver plug-in odd is no DriverType but int"),
        ("memory, speed: 3", "speed"),
        ("mqtt", "host"),  # ours: a plug-in cannot take its place
    ],
)
def test_a_wrong_plug_in_is_said_in_one_line(kind: str, message: str, site_file: Path) -> None:
    site_file.write_text(SITE.replace("TYPE", kind), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        open_driver(load_site(site_file))
    with pytest.raises(UsageError, match=rf"{re.escape(str(site_file))}:\d+: .*{message}"):
        load_checked_site(site_file)
