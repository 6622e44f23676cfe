"""Programs as devices: what they get, and what is done about those that never end or never stop."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from devices.driver import DeviceUnavailable, Driver
from devices.drivers import programs
from devices.drivers.registry import open_driver
from devices.site.site import load_site

SITE = """schema: site/v1
name: one
title: a room
drivers: {it: {type: command, allow: [PROGRAM], timeout_s: 0.5}}
devices:
  plug: {model: switch, driver: it, at: {"on": {read: [PROGRAM, show], write: [PROGRAM, set, "{value}"]}}}
"""


def driver_for(script: str, folder: Path) -> Driver:
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    (folder / "one.yaml").write_text(SITE.replace("PROGRAM", str(program)), encoding="utf-8")
    return open_driver(load_site(folder / "one.yaml"))


def test_a_program_gets_its_words_no_input_and_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    heard = tmp_path / "heard"
    driver = driver_for(f'echo "$# $1 $2 [$TOKEN] [$(cat)]" >> {heard}; echo true', tmp_path)
    driver.write("plug", {"on": False})
    assert driver.read("plug")["on"].value is True
    assert heard.read_text(encoding="utf-8").splitlines() == ["2 set false [] []", "1 show  [] []"]


def test_a_program_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    driver = driver_for(f"sleep 60 & echo $! > {tmp_path}/child; wait", tmp_path)
    started_s = time.monotonic()
    with pytest.raises(DeviceUnavailable, match="did not end within"):
        driver.read("plug")
    assert time.monotonic() - started_s < 3
    child = int((tmp_path / "child").read_text(encoding="utf-8"))
    deadline_s = time.monotonic() + 3
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split():
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize(
    ("script", "message"),
    [("exit 3", "ended with 3"), ("yes", "wrote too much"), ("printf '\\377'", "showed no text")],
)
def test_what_goes_wrong_is_said(script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MAX_OUTPUT_BYTES", 1 << 16)
    driver = driver_for(script, tmp_path)
    with pytest.raises(DeviceUnavailable, match=message):
        driver.read("plug")


def test_a_program_that_is_gone(tmp_path: Path) -> None:
    driver = driver_for("echo true", tmp_path)
    (tmp_path / "program").unlink()
    with pytest.raises(DeviceUnavailable, match="No such file"):
        driver.write("plug", {"on": True})
