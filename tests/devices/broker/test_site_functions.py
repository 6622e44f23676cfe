"""Tools that a site's devices carry out: its broker decides beside the toolset's, and no yes is got round."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.drivers.registry import load_checked_site, open_driver
from devices.errors import UsageError
from devices.site.functions import CALL
from devices.site.tools import Command

TOOLSET = """\
schema: toolset/v1
name: desk
title: desk
executors: {{house: {{type: site, site: home, is_simulated: {simulated}}}}}
tools:
  dim:
    parameters:
      {{type: object, properties: {{room: {{type: string}}, level: {{type: integer}}}}, required: [room, level]}}
    risk: low
    executor: house
    at: {dim}
  warm:
    parameters: {{type: object, properties: {{}}}}
    risk: none
    executor: house
    at: {{device: hall_thermostat}}
  unlock:
    parameters: {{type: object, properties: {{}}}}
    risk: {unlock}
    executor: house
    at: {{device: front_door, action: unlock}}
"""
DIM = '{device: "{room}_light", action: brightness, send: {level: brightness}}'


def toolset(folder: Path, dim: str = DIM, unlock: str = "confirm", simulated: str = "true") -> Path:
    path = folder / "desk.yaml"
    path.write_text(TOOLSET.format(dim=dim, unlock=unlock, simulated=simulated), encoding="utf-8")
    return path


def test_a_tool_moves_a_device_and_another_reads_it(tmp_path: Path) -> None:
    site = load_checked_site(toolset(tmp_path))
    driver = open_driver(site)
    broker = Broker(site, driver, Journal(), confirm=lambda effect: True)
    dimmed = broker.execute(Command("dim", CALL, {"room": "kitchen", "level": 40}))
    assert dimmed.status == "done" and dimmed.result["brightness"] == 40
    assert broker.execute(Command("warm", CALL, {})).result == {"target_c": 20, "temperature_c": 18.5}
    assert broker.execute(Command("unlock", CALL, {})).result["locked"] is False
    too_bright = broker.execute(Command("dim", CALL, {"room": "kitchen", "level": 400}))
    assert too_bright.status == "failed" and "400" in too_bright.report
    nowhere = broker.execute(Command("dim", CALL, {"room": "cellar", "level": 4}))
    assert nowhere.report == "dim refused: there is no cellar_light; there is kitchen_light."
    driver.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"unlock": "low"}, "unlock.call has the risk low, and front_door.unlock has confirm"),
        ({"unlock": "none"}, "has the risk none"),
        ({"dim": '{device: "{place}_light", action: brightness}'}, "names 'place', which is no parameter"),
        ({"dim": "{device: kitchen_lamp, action: brightness}"}, "home has no such device with brightness"),
        ({"dim": '{device: "{room}_light", action: brightness}'},
         "gives level to kitchen_light.brightness, which takes brightness"),
        ({"simulated": "false"}, "is for kitchen_light, which has no driver in home"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_found_before_anything_is_called(tmp_path: Path, change: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=r"desk\.yaml:\d+") as raised:
        load_checked_site(toolset(tmp_path, **change))
    assert says in str(raised.value)
