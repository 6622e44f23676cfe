"""What a thought may say of numbers in a state: each argument's bounds, and the values that people name by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from devices.site.describe import value_text
from devices.site.relative_values import is_off_at_0, least_step, wished_values, written_property
from devices.site.schema import DataSchema
from devices.site.site import Site
from devices.site.tools import Tool
from edge_agent.agent.request_facts import NOTHING_SAID, RequestFacts
from edge_agent.grammar.grammar import NumberArgument
from edge_agent.wire.contract import argument_text
from edge_agent.wire.durations import SECONDS
from edge_agent.wire.messages import State, json_value

MOST_SPEEDS = 6  # that low, medium and high may stand for


def truths_of(site: Site, state: State) -> Iterator[tuple[str, str, str]]:
    """Yield what is so of each boolean in a state, by device and the words that thoughts have for it, and what is not.

    Words that two properties of a device share, one of which is so and the other not, are left out.
    """
    for name, values in state.items():
        said: dict[str, set[bool]] = {}
        for key, value in values.items():
            if isinstance(value, bool) and name in site.devices and key in site.devices[name].properties:
                schema = site.devices[name].properties[key]
                for wanted in (True, False):
                    said.setdefault(value_text(schema, wanted), set()).add(value == wanted)
        yield from ((name, words, "yes" if so == {True} else "no") for words, so in said.items() if len(so) == 1)


def number_arguments(
    site: Site, tools: Iterable[Tool], state: State, said: RequestFacts = NOTHING_SAID
) -> Iterator[NumberArgument]:
    """Yield each numeric argument of a device's tools with its bounds, and what "more", "half" and such are now.

    Args:
        site: whose actions they are.
        tools: of the site.
        state: property values by device.
        said: what the request settles.
    """
    for tool in tools:
        for name, schema in tool.input.items():
            if schema.minimum is None or schema.maximum is None:
                continue
            bounds, step = argument_text(name, schema).removeprefix(f"{name}:"), least_step(schema)
            asked = _in_its_unit(said.duration_s, schema) or _level_value(said.level, schema)
            for device in tool.devices:
                action = site.devices[device].actions[tool.action]
                written = written_property(action, name)
                value = state.get(device, {}).get(written)
                now = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
                is_switch = is_off_at_0(action, name)
                wished = {} if now is None else wished_values(now, schema, is_off_at_0=is_switch)
                texts = tuple((words, json_value(one)) for words, one in wished.items())
                limits = schema.minimum, schema.maximum, step
                property_ = site.devices[device].properties.get(written)
                off = property_.states.get("off") if device in said.off and property_ else None
                off = None if off is None or schema.problem_with(off) else off
                yield NumberArgument(
                    device, tool.name, name, bounds, *limits, now, texts, asked if off is None else json_value(off)
                )


def _level_value(level: str, schema: DataSchema) -> str:
    """Return what a level is for an argument: as it is declared, or of a few speeds the first, middle or last one."""
    if level in schema.levels:
        return json_value(schema.levels[level])
    most = int(schema.maximum or 0)
    if not level or schema.levels or schema.type != "integer" or schema.minimum != 0 or not 2 <= most <= MOST_SPEEDS:
        return ""
    return str({"low": 1, "medium": (most + 1) // 2, "high": most}[level])


def _in_its_unit(duration_s: float | None, schema: DataSchema) -> str:
    """Return a duration as an argument counts it; "" if it counts no time, or not in whole numbers."""
    unit_s = SECONDS.get(schema.unit.removesuffix("s"))
    return f"{duration_s / unit_s:g}" if duration_s is not None and unit_s and duration_s % unit_s == 0 else ""
