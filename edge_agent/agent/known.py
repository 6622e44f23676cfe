"""What thoughts need not recall or reckon in a turn: from the site, its tools and its state (grammar.Known)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from devices.site.describe import answers_about, value_text
from devices.site.device import Device
from devices.site.phrasings import group_words
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command, Tool, tool_of
from edge_agent.agent.number_arguments import number_arguments, truths_of
from edge_agent.agent.request_facts import NOTHING_SAID, RequestFacts
from edge_agent.grammar.grammar import Known, KnownDevice, KnownTool
from edge_agent.wire.contract import devices_text
from edge_agent.wire.messages import Ages, State, facts_of, json_value

OFF = ("off", "stopped")


def known_of(
    site: Site,
    tools: Sequence[Tool],
    state: State,
    ages: Ages,
    said: RequestFacts = NOTHING_SAID,
    undo: str = "",
    recent: Sequence[str] = (),
) -> Known:
    """Return what is known of a site in a state.

    Args:
        site: of devices; of a toolset only the facts are known.
        tools: of the site.
        state: property values by device.
        ages: in words, of values that are older than they should be.
        said: what the request settles.
        undo: what makes devices again what they were, as undo_text has it.
        recent: devices that were spoken of last.
    """
    facts = tuple(facts_of(state, ages))
    if site.is_toolset:
        return Known(facts)
    return Known(
        facts=facts,
        numbers=tuple(number_arguments(site, tools, state, said)),
        truths=tuple(truths_of(site, state)),
        names=tuple(_names_of(site)),
        targets=(*site.devices, *site.targets, *site.scenes),
        tools=tuple(
            KnownTool(tool.name, devices_text(tool), tool.devices, tuple(tool.input)) for tool in tools if tool.devices
        ),
        recent=tuple(recent),
        undo=undo,
        is_wish=said.is_wish,
        is_whole=said.is_whole,
        direction=said.direction,
        short_wish=said.short_wish,
        there=said.there,
        is_except=said.is_except,
        again=tuple(_calls_of(said.again, site, tools)),
        listed=said.listed,
        named=said.named,
        off=tuple((name, tool) for name in said.switched_off for tool, _ in _off_of(site.devices[name], tools)),
        devices=tuple(known_device(site.devices[name], {} if ages.get(name) else one) for name, one in state.items()),
    )


def _calls_of(
    commands: Sequence[Command], site: Site, tools: Sequence[Tool]
) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield the tool of each command, with its numbers as thoughts have them; and each that makes off, if all did."""
    for one in commands:
        numbers = {key: value for key, value in one.input.items() if isinstance(value, int | float)}
        yield tool_of(one, tools).name, tuple((key, json_value(value)) for key, value in numbers.items())
    if commands and all(_makes_off(site.devices[one.device], one.action, one.input) for one in commands):
        yield from {tool: values for device in site.devices.values() for tool, values in _off_of(device, tools)}.items()


def _off_of(device: Device, tools: Sequence[Tool]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return the tool that makes a device off, with its values: one that takes none, or else one that is given 0."""
    own = [one for one in tools if device.name in one.devices]
    if any(str(value) == "off" for one in own for schema in one.input.values() for value in schema.enum or ()):
        return []  # a mode, which may be meant as well
    given = [(one, dict.fromkeys(one.input, 0)) for one in sorted(own, key=lambda one: len(one.input))]
    found = [
        (one.name, tuple((key, "0") for key in zeros)) for one, zeros in given if _makes_off(device, one.action, zeros)
    ]
    return found[:1]


def _makes_off(device: Device, action: str, arguments: Mapping[str, Value]) -> bool:
    effect = device.actions[action].effect(dict(arguments)).items()
    off = (*OFF, "closed") if device.kind == "valve" else OFF
    return any(value_text(device.properties[key], value) in off for key, value in effect if key in device.properties)


def known_device(device: Device, values: Mapping[str, Value]) -> KnownDevice:
    """Return what answers about a device are made of. Args: values: its properties'; none if the model tells them."""
    group = group_words(device.kind)
    singular, plural = (group.singular, group.plural) if group else (device.kind, f"{device.kind}s")
    return KnownDevice(device.name, device.title, singular, plural, tuple(answers_about(device, values)))


def _names_of(site: Site) -> Iterator[tuple[str, str]]:
    """Yield each name of the things of a site, and what it is in calls."""
    for places in (site.floors, site.areas, site.groups, site.scenes):
        for key, place in places.items():
            yield from ((name, key) for name in (place.title, *place.aliases))
    for device in site.devices.values():
        yield from ((name, device.name) for name in device.names)
