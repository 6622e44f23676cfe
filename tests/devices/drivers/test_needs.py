"""What drivers say that they need of a machine is what their settings name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devices.driver import Needs, peer_of
from devices.drivers.registry import BUILT_IN, needs_of
from devices.errors import UsageError
from devices.site.site import load_site

SITE = """schema: site/v1
name: place
title: a place
drivers: {it: {SETTINGS}}
devices: {lamp: {model: light}}
"""
GPIO = {"gpiozero": "gpiozero", "lgpio": "lgpio"}


def needs(settings: str, folder: Path) -> Needs:
    file = folder / "site.yaml"
    file.write_text(SITE.replace("SETTINGS", settings), encoding="utf-8")
    return needs_of(load_site(file), "it")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ("type: gcode, serial: /dev/ttyUSB0", Needs({"serial": "pyserial"}, devices=("/dev/ttyUSB0",))),
        ("type: gpio", Needs(GPIO, devices=("/dev/gpiochip[04]",))),
        ("type: gpio, chip: 2", Needs(GPIO, devices=("/dev/gpiochip2",))),
        ("type: gpio, factory: /tmp/pins", Needs({"gpiozero": "gpiozero"}, devices=("/tmp/pins",))),
        ("type: gpio, factory: native", Needs({"gpiozero": "gpiozero"}, devices=("/dev/gpiomem",))),
        ("type: i2c, bus: 1", Needs({"smbus2": "smbus2"}, devices=("/dev/i2c-1",))),
        ("type: i2c, bus: /tmp/bus", Needs({"smbus2": "smbus2"}, devices=("/tmp/bus",))),
        ("type: modbus, host: plc", Needs({"pymodbus.client": "pymodbus"}, peers=(("plc", 502),))),
        (
            "type: modbus, serial: /dev/ttyS1",
            Needs({"pymodbus.client": "pymodbus", "serial": "pyserial"}, devices=("/dev/ttyS1",)),
        ),
        (
            "type: modbus, serial: 'socket://plc:502'",
            Needs({"pymodbus.client": "pymodbus", "serial": "pyserial"}),
        ),
        (
            "type: mqtt, host: hub, profile: plain, password_file: pass",
            Needs({"paho.mqtt.client": "paho-mqtt"}, reads=("pass",), peers=(("hub", 1883),)),
        ),
        ("type: http, url: 'https://shelly/x', token_file: token", Needs(reads=("token",), peers=(("shelly", 443),))),
        ("type: sql, file: shop.sqlite", Needs(reads=("shop.sqlite",))),
        ("type: command, allow: [/opt/relay]", Needs(runs=("/opt/relay",))),
        ("type: python, file: tools.py", Needs(reads=("tools.py",))),
        ("type: mcp, command: [npx, server]", Needs({"mcp": "mcp"}, runs=("npx",))),
        ("type: mcp, url: 'http://hub:9000/mcp'", Needs({"mcp": "mcp"}, peers=(("hub", 9000),))),
        ("type: caller", Needs()),
        ("type: site, site: greenhouse", Needs({"pymodbus.client": "pymodbus"}, peers=(("127.0.0.1", 5020),))),
        ("type: site, site: greenhouse, is_simulated: true", Needs()),
    ],
)
def test_what_a_driver_needs(settings: str, wanted: Needs, tmp_path: Path) -> None:
    assert needs(settings, tmp_path) == wanted


def test_every_driver_of_ours_is_here() -> None:
    tested = test_what_a_driver_needs.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {settings.split(",")[0].removeprefix("type: ") for settings, _ in tested} == BUILT_IN.keys()


def test_an_mcp_server_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"shop": {"command": "shop-server", "args": ["-v"]}}}), encoding="utf-8")
    assert needs(f"type: mcp, file: {file}, server: shop", tmp_path) == Needs(
        {"mcp": "mcp"}, reads=(str(file),), runs=("shop-server",)
    )
    with pytest.raises(UsageError, match="has no server 'shed'"):
        needs(f"type: mcp, file: {file}, server: shed", tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("type: gcod", "no driver is of the type 'gcod'"),
        ("type: i2c, buss: 1", "site place, it.bus"),
        ("type: http, url: 'http://shelly:99999/'", "http://shelly:99999/: Port out of range"),
    ],
)
def test_wrong_settings(settings: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        needs(settings, tmp_path)


def test_a_url_without_a_host() -> None:
    with pytest.raises(UsageError, match="names no host"):
        peer_of("http:///path")
