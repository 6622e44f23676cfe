"""The contract: what training and running must agree on, to the byte. System prompt, tools, template, wire format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from devices.simulation.world import World
from devices.site.schema import DataSchema
from devices.site.site import Site, load_site
from devices.site.tools import Command, Tool, ToolCall, call_of, tools_of
from edge_agent.wire.chat_template import ChatTemplate, ContractChanged
from edge_agent.wire.function_text import TOOLS_HEADING, with_lines
from edge_agent.wire.messages import Message, compact_json, json_value, result_message, user_message
from edge_agent.wire.spelling import NO_WORDS, SiteWords, words_of

WIRE_FORMAT = "wire/4"  # how turns are written below; a change of it is another contract
INTRODUCTION = """\
You control {title}. Think first, then call tools or answer.
Act only when asked to. Values outside a range, unknown devices and missing values are not called."""
SPECIMEN = Path(__file__).parent / "specimen.yaml"
TARGETS_HEADING = "Floors and groups:"


@dataclass(frozen=True)
class Contract:
    """What training and running must agree on, to the byte.

    `words` is what requests are spelled by; it is free: a new name of a device needs no training. A toolset has None:
    its requests are put as they were typed, and no state before them.
    """

    template: ChatTemplate
    system_text: str
    tools: tuple[Tool, ...]
    words: SiteWords | None = NO_WORDS

    @property
    def digest(self) -> str:
        """SHA-256 in hex of wire format, template, system prompt and tool schemas."""
        parts = [
            WIRE_FORMAT,
            self.template.source,
            self.system_text,
            *(compact_json(tool.openai()) for tool in self.tools),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def contract_of(site: Site, template: ChatTemplate) -> Contract:
    """Return the contract that a site and a template make."""
    tools = tuple(tools_of(site))
    return Contract(template, system_text(site, tools), tools, None if site.is_toolset else words_of(site, tools))


def format_digest(template: ChatTemplate) -> str:
    """Return the SHA-256 in hex of how any site is put before a model: the specimen's contract, and turns of it.

    A model for any site has learned that, and not one site's devices and tools.
    """
    site = load_site(SPECIMEN)
    contract = contract_of(site, template)
    state, ages = World(site).snapshot(), {"study_radiator": {"temperature_c": "5 minutes"}}
    turns = [
        Message("system", contract.system_text),
        user_message("Office LAMP to 40", state, "07:05", contract.words, ages),
        Message("assistant", "", "study lamp is study_lamp.", (ToolCall("light_on", {"device": "study_lamp"}),)),
        result_message([{"status": "done", "device": "study_lamp", "on": True}]),
    ]
    rendered = template.render(turns, add_generation_prompt=True)
    return hashlib.sha256(f"{contract.digest}\0{rendered}".encode()).hexdigest()


def require_contract(expected: str, actual: str, what: str) -> None:
    """Raise ContractChanged unless both digests are equal."""
    if expected != actual:
        raise ContractChanged(
            f"{what} was trained for another contract ({expected[:12]}, this site makes {actual[:12]})",
            hint="template, system prompt or tools changed: train again for this site, or use the site it was made for",
        )


def introduction_in(text: str) -> str:
    """Return the start of a system text, as much as INTRODUCTION has, with a hole where the site's title stands."""
    begin, end = INTRODUCTION.split("{title}")
    line, newline, rest = text.partition("\n")
    title = line.removeprefix(begin).removesuffix(end.partition("\n")[0])
    return (line.replace(title, "{title}", 1) + newline + rest)[: len(INTRODUCTION)]


def system_text(site: Site, tools: Iterable[Tool]) -> str:
    """Return the static prompt: who the assistant is, what floors and groups there are, and each tool's signature."""
    if site.is_toolset:
        return with_lines(site.system.strip(), [tool.openai() for tool in tools])
    lines = [
        INTRODUCTION.format(title=site.title),
        *_target_lines(site),
        TOOLS_HEADING,
    ]
    return "\n".join([*lines, *(f" {line}" for line in _signatures(tools))])  # the blank: see user_message


def _signatures(tools: Iterable[Tool]) -> Iterator[str]:
    """Yield a line a tool; where there are areas, one for all tools that take the same."""
    alike: dict[str, list[str]] = {}
    for tool in tools:
        if tool.targets:
            alike.setdefault(arguments_text(tool), []).append(tool.name)
        else:
            yield signature(tool)
    yield from (f"{', '.join(names)}{arguments}" for arguments, names in alike.items())


def _target_lines(site: Site) -> list[str]:
    """Return a heading and a line for each floor and group; nothing where there is none. The state has the areas."""
    floors = {name: [area for area, one in site.areas.items() if one.floor == name] for name in site.floors}
    members = floors | {name: list(group.devices) for name, group in site.groups.items()}
    return [TARGETS_HEADING, *(f" {name}: {', '.join(some)}" for name, some in members.items())] if members else []


def signature(tool: Tool) -> str:
    """Return a tool on one line: `light_brightness(device: a | b, brightness: 0..100 percent)`."""
    return tool.name + arguments_text(tool)


def arguments_text(tool: Tool) -> str:
    """Return what a tool takes, in brackets."""
    if tool.scenes:
        return f"(scene: {' | '.join(tool.scenes)})"
    return f"({', '.join([devices_text(tool), *(argument_text(name, schema) for name, schema in tool.input.items())])})"


def devices_text(tool: Tool) -> str:
    """Return a tool's devices as signatures, and thoughts that copy from them, write them: `device: a | b`.

    On a site with areas the state says of which kind each device is and what it has, and names it once:
    `device: any cover but a | area`, `device: any light with brightness | area`.
    """
    listed = f"device: {' | '.join(tool.devices)}"
    if not tool.targets:
        return listed
    by_kind = f"device: any {tool.kind}"
    if tool.without:
        shared = next(iter(tool.marks), "")
        by_kind += f" with {shared}" if shared else f" but {', '.join(tool.without)}"
        if not shared and len(tool.without) >= len(tool.devices):
            by_kind = listed
    return f"{by_kind} | area"


def argument_text(name: str, schema: DataSchema) -> str:
    """Return an argument as signatures, and thoughts that copy from them, write it: `brightness: 0..100 percent`.

    What a request may mean by a word is in it, as in `speed: 0..3 (low 1, medium 2, high 3)`.
    """
    if schema.enum:
        return f"{name}: {' | '.join(schema.enum)}"
    if schema.type == "boolean":
        return f"{name}: true | false"
    bounds = f"{name}: {schema.minimum:.12g}..{schema.maximum:.12g} {schema.unit}".rstrip()
    more = schema.levels_text() or (f"step {schema.step:g}" if schema.step else "")
    return f"{bounds} ({more})" if more else bounds


def bounds_text(name: str, schema: DataSchema) -> str:
    """Return an argument's bounds as the tool's signature writes them, so that they need only be copied; "" if none."""
    return "" if schema.minimum is None else f", {argument_text(name, schema)}"


def call_text(site: Site, tools: Iterable[Tool], command: Command) -> str:
    """Return a call as thoughts write it: `light_brightness brightness=40, brightness: 0..100 percent`."""
    schemas = site.devices[command.device].actions[command.action].input
    values = [f" {key}={json_value(value)}{bounds_text(key, schemas[key])}" for key, value in command.input.items()]
    return call_of(command, tools).name + "".join(values)
