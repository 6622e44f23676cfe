"""A renamed site does what the site does, under other names."""

from __future__ import annotations

from random import Random

import pytest

from devices.site.renaming import renamed
from devices.site.site import Site, load_site
from devices.site.tools import tools_of

SITES = ["home", "greenhouse", "bench_arm", "support", "database"]


@pytest.mark.parametrize("name", SITES)
def test_tools_and_arguments_have_other_names_and_all_else_stays(name: str) -> None:
    site = load_site(name)
    other = renamed(site, Random(1))
    assert Site.model_validate(other.model_dump(by_alias=True)) == other  # every reference is carried over
    before, after = tools_of(site), tools_of(other)
    assert len(before) == len(after) and not {tool.name for tool in before} & {tool.name for tool in after}
    assert len({tool.name for tool in after}) == len(after)
    for one, same in zip(before, after, strict=True):
        assert one.devices == same.devices and list(one.input.values()) == list(same.input.values())
    assert list(site.devices) == list(other.devices)
    for device in site.devices:
        assert site.devices[device].properties == other.devices[device].properties


def test_arguments_are_renamed_wherever_they_stand() -> None:
    site = load_site("home")
    other = renamed(site, Random(3))
    lamp = other.devices["kitchen_light"]
    action = next(action for action in lamp.actions.values() if action.input)
    (name,) = action.input
    assert name != "brightness" and all(f"{{{name}}}" in template for template in action.requests)
    assert action.effect({name: 40}) == {"on": True, "brightness": 40}
    assert renamed(site, Random(3)) == other and renamed(site, Random(4)) != other
